"""Compiles the kernel for ranges of keys for a Hopper GPU, which need not be there; prints its shared memory as JSON.

python compile_kernels.py
"""

import json
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slurminfer.nodes.native.cuda import ranges
from slurminfer.nodes.native.parallel.ranges import tile_height

HOPPER = GPUTarget("cuda", 90, 32)
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_NUMBERS, _PLACES, _SUMS = ("q", "tokens"), ("tables", "tiles", "bounds"), ("means", "sums")


def shared_bytes(dtype: torch.dtype, head_dim: int, queries: int, height: int) -> int:
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
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    options = {name: value for name, value in given.items() if not name.isupper()}
    size: int = triton.compile(source, target=HOPPER, options=options).metadata.shared
    return size


def main() -> None:
    found = {}
    for dtype, name in NAMES.items():
        for head_dim, queries in ((128, 4), (256, 8)):
            height = tile_height(queries, head_dim, dtype)
            found[f"{name} {head_dim} {queries} {height}"] = shared_bytes(dtype, head_dim, queries, height)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
