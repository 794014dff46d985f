"""Answers that are not streamed: what was generated is held until the last token is there."""

from collections.abc import AsyncIterable, Sequence

from ..errors import ApiError
from ..requests.generation import GenerationRequest
from .generation import Delta

_FEW_VALUES = 4096  # tokens and alternatives of them
MOST_LOGPROBS = 1_000_000  # of one answer, alternatives included: about 150 MB, and twice that while it is written


def require_tellable(body: GenerationRequest, prompts: Sequence[Sequence[int]], most: int = MOST_LOGPROBS) -> None:
    """Raise ApiError where the prompts alone have more log-probabilities than an answer may, streamed or not."""
    top = body.prompt_top_count
    count = 0 if top is None else (1 + top) * body.choices * sum(map(len, prompts))
    if count > most:
        param = "logprobs" if body.prompt_logprobs is None else "prompt_logprobs"
        message = f"{param}: the prompts have {count} log-probabilities, alternatives and choices included"
        raise ApiError(400, f"{message}: expected at most {most}", param=param)


def is_long(body: GenerationRequest, tokens: int) -> bool:
    """Whether to write an answer of so many tokens takes seconds and memory, so that it is done beside others."""
    return tokens * (1 + (body.top_count or 0)) > _FEW_VALUES or body.prompt_top_count is not None


async def collect(deltas: AsyncIterable[Delta], most_logprobs: int = MOST_LOGPROBS) -> list[Delta]:
    """All deltas of an answer. Raises ApiError as soon as they have more than `most_logprobs` log-probabilities."""
    held, logprobs = [], 0
    async for delta in deltas:
        if delta.logprobs is not None:
            logprobs += 1 + len(delta.logprobs.top)
        if logprobs > most_logprobs:
            message = f"logprobs: the answer has more than {most_logprobs} log-probabilities, alternatives included"
            expected = "expected fewer tokens, choices or alternatives, or stream = true"
            raise ApiError(400, f"{message}: {expected}", param="logprobs")
        held.append(delta)
    return held
