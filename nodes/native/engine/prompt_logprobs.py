"""Log-probabilities of a prompt's own tokens: each row of logits is reduced at once to what was asked for."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # see thread.py
    from torch import Tensor

_PIECE_BYTES = 8 << 20  # are reduced at once: each operation makes a copy of its piece


class PromptLogprobs:
    """Of each token of a prompt but the first: its log-probability and rank, and the `top` most likely tokens.

    Natural logarithms, under the model's own distribution. 8 bytes for each number and its token.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._chosen, self._ranks = array("f"), array("i")
        self._ids, self._values = array("i"), array("f")  # `top` for each token, most likely first

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[tuple[float, int, tuple[tuple[int, float], ...]]]:
        """For each token: its log-probability, its rank from 1 on, and the most likely tokens with theirs."""
        for place, (chosen, rank) in enumerate(zip(self._chosen, self._ranks, strict=True)):
            best = slice(place * self.top, (place + 1) * self.top)
            yield chosen, rank, tuple(zip(self._ids[best], self._values[best], strict=True))

    def add(self, logits: "Tensor", tokens: Sequence[int]) -> None:
        """Take in the next `tokens` of the prompt, and the logits float32 [len(tokens), vocab] that foretell them."""
        size = max(_PIECE_BYTES // (4 * logits.shape[-1]), 1)
        for start in range(0, len(tokens), size):
            self._reduce(logits[start : start + size], tokens[start : start + size])

    def _reduce(self, logits: "Tensor", tokens: Sequence[int]) -> None:
        total = logits.logsumexp(-1, keepdim=True)
        own = logits.gather(-1, total.new_tensor(tokens).long()[:, None])
        ranks = (logits > own).sum(-1) + 1
        best = logits.topk(min(self.top, logits.shape[-1]))
        self._chosen.extend((own - total)[:, 0].tolist())
        self._ranks.extend(ranks.tolist())
        self._ids.extend(best.indices.flatten().tolist())
        self._values.extend((best.values - total).flatten().tolist())
