"""Compiles the kernel for ranges of keys for a Hopper GPU, which need not be there.

Prints, as JSON, bytes of shared memory of a program, and of what its threads could not keep in registers, by case.

python compile_kernels.py
"""

import json
import re
import subprocess
import tempfile
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slurminfer.nodes.native.model.cuda import ranges
from slurminfer.nodes.native.model.parallel.ranges import tile_height

HOPPER = GPUTarget("cuda", 90, 32)
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_NUMBERS, _PLACES, _SUMS = ("q", "tokens"), ("tables", "tiles", "bounds"), ("means", "sums")


def usage(dtype: torch.dtype, head_dim: int, queries: int, height: int) -> tuple[int, int]:
    """What a program of `attend_ranges` takes; `queries` share a key-value head."""
    kernel: Any = ranges._attend
    given = ranges.program(height * queries, head_dim, dtype.itemsize)
    constants = {
        "QUERIES": queries, "KV_HEADS": 8, "HEAD_DIM": head_dim, "BLOCK": 16, "MEAN_STRIDE": head_dim,
        "SUM_STRIDE": 1, **{name: value for name, value in given.items() if name.isupper()},
    }  # fmt: skip
    kinds = {
        **dict.fromkeys(_NUMBERS, f"*{NAMES[dtype]}"), **dict.fromkeys(_PLACES, "*i32"),
        **dict.fromkeys(_SUMS, "*fp32"), **dict.fromkeys(("scale", "unit"), "fp32"),
        **dict.fromkeys(constants, "constexpr"),
    }  # fmt: skip
    names = kernel.arg_names
    signature = {name: kinds.get(name, "i32") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in (*_NUMBERS, *_PLACES, "row_stride")}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    options = {name: value for name, value in given.items() if not name.isupper()}
    compiled = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile() as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        said = subprocess.run([knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True, text=True)
    stack = re.search(r"STACK:(\d+)", said.stdout)
    assert stack is not None, said
    return compiled.metadata.shared, int(stack[1])


def main() -> None:
    found = {}
    for dtype, name in NAMES.items():
        for head_dim, queries in ((128, 4), (256, 8)):
            height = tile_height(queries, head_dim, dtype)
            found[f"{name} {head_dim} {queries} {height}"] = usage(dtype, head_dim, queries, height)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
