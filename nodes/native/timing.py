"""How fast an engine computes: seconds of decode steps and of prefills, with scheduler and sampler, without HTTP."""

import time
from collections.abc import Sequence
from itertools import chain, count, islice, repeat
from typing import TYPE_CHECKING

import msgspec

from .engine.request import Request, SamplingParams

if TYPE_CHECKING:  # it imports torch, and who only reads StepTimes does without
    from .engine.core import EngineCore

_PROMPT, _PREFILL = 64, 512  # tokens
_ROUNDS, _STEPS, _FEWEST_STEPS, _SECONDS = 2, 12, 4, 4.0
_WARM_UP = 2
LONGEST = max(_PREFILL, _PROMPT + 1 + _WARM_UP + _STEPS) + 1  # tokens of a sequence that is measured


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of single steps: take medians, for other processes may have disturbed some."""

    decode: dict[int, list[float]]  # by batch size: of steps that compute one token for each sequence
    prefill: list[float]  # of prompts, up to their first token
    prefill_tokens: int  # in such a prompt


def measure_speed(core: "EngineCore", tokens: Sequence[int], batches: Sequence[int]) -> StepTimes:
    """Decode at each batch size and prefill, in turns: what disturbs the machine for a while hits all of them.

    Prompts are pieces of `tokens`. Where the model has room for short sequences only, they are shorter.
    """
    room = core.limits.sequence_tokens
    prompts = _Prompts(tokens)
    times = StepTimes(decode={batch: [] for batch in batches}, prefill=[], prefill_tokens=min(_PREFILL, room - 1))
    for _ in range(_ROUNDS):
        for batch in batches:
            times.decode[batch].extend(_decode(core, [prompts.take(min(_PROMPT, room // 4)) for _ in range(batch)]))
        times.prefill.append(_prefill(core, prompts.take(times.prefill_tokens)))
    return times


class _Prompts:
    """Pieces of a text, no two with the same beginning: what the prefix cache has would not be computed."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens, self._starts = tokens, count()

    def take(self, length: int) -> list[int]:
        endless = chain.from_iterable(repeat(self._tokens))
        start = next(self._starts) % len(self._tokens)
        return list(islice(endless, start, start + length))


def _decode(core: "EngineCore", prompts: list[list[int]]) -> list[float]:
    requests = _add(core, prompts)
    while not all(request.generated for request in requests):
        core.step()
    room = core.limits.sequence_tokens - max(len(request.tokens) for request in requests) - _WARM_UP
    for _ in range(_WARM_UP):
        core.step()
    seconds: list[float] = []
    while len(seconds) < min(_STEPS, room) and (len(seconds) < _FEWEST_STEPS or sum(seconds) < _SECONDS):
        seconds.append(_step(core))
    _abort(core, requests)
    return seconds


def _prefill(core: "EngineCore", prompt: list[int]) -> float:
    requests = _add(core, [prompt])
    seconds = 0.0
    while not requests[0].generated:
        seconds += _step(core)
    _abort(core, requests)
    return seconds


def _step(core: "EngineCore") -> float:
    start = time.perf_counter()
    core.step()
    return time.perf_counter() - start


def _add(core: "EngineCore", prompts: list[list[int]]) -> list[Request]:
    """Greedy requests that do not end by themselves."""
    most = core.limits.sequence_tokens
    requests = [
        Request(str(i), prompt, SamplingParams(max_tokens=most - len(prompt), temperature=0))
        for i, prompt in enumerate(prompts)
    ]
    for request in requests:
        core.add(request)
    return requests


def _abort(core: "EngineCore", requests: list[Request]) -> None:
    for request in requests:
        core.abort(request.id)
