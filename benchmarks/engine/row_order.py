"""Whether a row's product depends on how many rows there are, and what it would cost that it does not.

    python -m benchmarks.engine.row_order [--device cuda]

On a CPU, float32: oneDNN's products of one row are rounded otherwise than those of several, so one row is computed as
two. On a GPU, bfloat16: cuBLAS beside a Triton kernel that adds up in one order for any number of rows.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_ROWS = (1, 2, 3, 4, 8, 16, 17, 32, 33, 64, 65, 128, 256, 512, 1000, 2048)
_CPU_SHAPES = ((576, 960), (1536, 576), (576, 3072), (2048, 2048), (5632, 2048), (2048, 11264))
_GPU_SHAPES = ((4096, 4096), (4096, 14336), (14336, 4096))


def same_to_the_bit(product: Product, x: torch.Tensor, w: torch.Tensor) -> list[list[int]]:
    """Numbers of rows, together where the first row's product is the same."""
    found: list[tuple[torch.Tensor, list[int]]] = []
    for rows in _ROWS:
        first = product(x[:rows], w)[0].clone()
        group = next((numbers for known, numbers in found if torch.equal(known, first)), None)
        if group is None:
            found.append((first, [rows]))
        else:
            group.append(rows)
    return [numbers for _, numbers in found]


def on_cpu() -> None:
    """Print groups of rows, and microseconds of one row and of two."""
    torch.set_num_threads(1)
    for inputs, outputs in _CPU_SHAPES:
        w = torch.ops.mkldnn._reorder_linear_weight(torch.randn(outputs, inputs), None)
        x = torch.randn(max(_ROWS), inputs)

        def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
            return y

        best = {1: float("inf"), 2: float("inf")}
        for _ in range(60):
            for rows in best:
                began = time.process_time()
                for _ in range(10):
                    product(x[:rows], w)
                best[rows] = min(best[rows], (time.process_time() - began) / 10)
        print(f"{inputs} x {outputs}: {same_to_the_bit(product, x, w)}")
        print(f"    {best[1] * 1e6:.1f} us for one row, {best[2] * 1e6:.1f} us for two: {best[2] / best[1]:.3f}")


def on_gpu() -> None:
    """Print groups of rows, and microseconds, of cuBLAS and of a kernel with one order."""
    import triton

    from .row_order_kernel import in_one_order

    for inputs, outputs in _GPU_SHAPES:
        x = torch.randn(2048, inputs, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) * inputs**-0.5
        print(f"{inputs} x {outputs}: cuBLAS {same_to_the_bit(F.linear, x, w)}")
        print(f"    one order {same_to_the_bit(in_one_order, x, w)}")
        for rows in (1, 8, 64, 256, 2048):
            times = [1e3 * triton.testing.do_bench(lambda f=f: f(x[:rows], w)) for f in (F.linear, in_one_order)]  # noqa: B023
            print(f"    {rows} rows: cuBLAS {times[0]:.1f} us, one order {times[1]:.1f} us")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    torch.manual_seed(0)
    on_cpu() if parser.parse_args().device == "cpu" else on_gpu()
