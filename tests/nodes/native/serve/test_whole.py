"""An answer that is not streamed is held in bounded memory."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from slurminfer.nodes.native.api.answers.generation import Delta
from slurminfer.nodes.native.api.answers.whole import collect, is_long
from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.engine.request import TokenLogprobs


async def _deltas(count: int, alternatives: int | None, given: list[int]) -> AsyncIterator[Delta]:
    logprobs = None if alternatives is None else TokenLogprobs(-1.0, tuple((id, -1.0) for id in range(alternatives)))
    for number in range(count):
        given.append(number)
        yield Delta(0, "a", 0, logprobs, None)


def test_all_deltas_are_given_up_to_the_bound():
    assert len(asyncio.run(collect(_deltas(4, 4, []), most_logprobs=20))) == 4
    assert len(asyncio.run(collect(_deltas(30, None, []), most_logprobs=20))) == 30


def test_too_many_logprobs_are_refused_as_soon_as_they_are_there():
    given: list[int] = []
    with pytest.raises(ApiError, match=r"more than 20 log-probabilities.*stream = true") as refused:
        asyncio.run(collect(_deltas(100, 4, given), most_logprobs=20))
    assert (refused.value.status, refused.value.param) == (400, "logprobs")
    assert len(given) == 5


def test_an_answer_with_many_tokens_or_alternatives_is_long():
    plain, reports = (CompletionRequest(model="m", prompt="a", logprobs=count) for count in (None, 20))
    assert not is_long(plain, 4000) and is_long(plain, 5000)
    assert not is_long(reports, 100) and is_long(reports, 300)
