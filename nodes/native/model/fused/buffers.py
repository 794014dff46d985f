"""Memory for the results of a step's operations; it grows to the largest step and is used again."""

from dataclasses import dataclass

import torch

from .....quant.checkpoint.config import ModelConfig
from .pack import GROUPS


@dataclass(frozen=True, slots=True)
class Room:
    """Views for one step, valid until the next `take`."""

    x: torch.Tensor  # float32 [rows, hidden]
    qkv: torch.Tensor  # float32 [rows, (heads + 2 kv_heads) * head_dim]
    attention: torch.Tensor  # float32 [rows, heads * head_dim]
    share: torch.Tensor  # float32 [rows, hidden]: what one rank of several has to add to x
    logits: torch.Tensor  # float32 [rows that have logits, padded vocabulary]
    pointers: tuple[int, ...]  # of StepStruct, from x on


class Buffers:
    """The memory of one decoder, whose steps are computed one after the other."""

    def __init__(self, config: ModelConfig, widest: int, head_outputs: int) -> None:
        """`widest`: inputs of a linear layer, at most."""
        heads = config.num_heads * config.head_dim
        self._widths = {
            "x": config.hidden_size,
            "qkv": heads + 2 * config.num_kv_heads * config.head_dim,
            "attention": heads,
            "partial": config.num_heads * (config.head_dim + 2),
            "inner": 2 * config.intermediate_size,
            "share": config.hidden_size,
            "codes": widest // 2,  # two bytes of each input
            "scales": 2 * (widest // GROUPS[-1]),
            "logits": head_outputs,
        }
        self._found = {name: torch.empty(0) for name in self._widths}

    def take(self, rows: int, pieces: int, logits_rows: int, shares: bool) -> Room:
        """Uninitialized memory for a step of `rows` rows with `pieces` pieces of attention (`RowLayout.pieces`).

        `shares`: whether other tensor ranks add to x, so that this rank's share needs memory of its own.
        """
        counts = {"partial": pieces, "logits": logits_rows, "share": rows * shares}
        for name, width in self._widths.items():
            needed = counts.get(name, rows) * width
            if len(self._found[name]) < needed:
                self._found[name] = torch.empty(needed)
        names = ("x", "qkv", "attention", "share", "logits")
        sizes = {name: (counts.get(name, rows), self._widths[name]) for name in names}
        views = {name: self._found[name][: n * width].view(n, width) for name, (n, width) in sizes.items()}
        order = ("x", "qkv", "attention", "partial", "inner", "codes", "scales")
        return Room(**views, pointers=tuple(self._found[name].data_ptr() for name in order))
