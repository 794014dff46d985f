"""The rows of a step's logits that are for log-probabilities of prompts: told apart from those that are sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .request import Request

Fail = Callable[[Request, Exception], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of logits of one request in one step, in their order."""

    request: Request
    prompt: int  # that foretell tokens of its prompt
    others: int  # its next token's, and those behind draft tokens


@torch.inference_mode()
def score_prompts(logits: torch.Tensor, step: Sequence[Rows], fail: Fail) -> torch.Tensor:
    """Take in the logits of prompts that want log-probabilities; the other rows, in their order.

    `fail` is told of a request that raises an exception.
    """
    if not any(rows.prompt for rows in step):
        return logits
    others: list[int] = []
    end = 0
    for rows in step:
        start, end = end, end + rows.prompt + rows.others
        others += range(start + rows.prompt, end)
        if rows.prompt and not rows.request.failed:
            try:
                _score(rows.request, logits[start : start + rows.prompt])
            except Exception as error:
                fail(rows.request, error)
    return logits[others]


def _score(request: Request, logits: torch.Tensor) -> None:
    assert request.prompt_logprobs is not None, "see Request.prompt_rows"
    first = len(request.prompt_logprobs) + 1
    request.prompt_logprobs.add(logits, request.tokens[first : first + len(logits)])
