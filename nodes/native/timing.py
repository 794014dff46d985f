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
_ROUNDS = 2
_WARM_UP = 3  # steps that give each sequence a token, the one that ends the prompts among them
_BANDWIDTH_BYTES, _BANDWIDTH_ROUNDS = 1 << 30, 5  # far more than caches hold


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How many decode steps are timed: `steps`, fewer where they take long, but not fewer than `fewest`."""

    steps: int = 12
    fewest: int = 4
    seconds: float = 4.0

    @property
    def room(self) -> int:
        """Tokens that each sequence may get meanwhile: twice as many as steps, for guesses that are right."""
        return 2 * (_WARM_UP + self.steps)


LONGEST = max(_PREFILL, _PROMPT + Pace().room) + 1  # tokens of a sequence that `measure_speed` makes


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of single steps: take medians, for other processes may have disturbed some."""

    decode: dict[int, list[float]]  # by batch size: of steps that compute one token for each sequence
    prefill: list[float]  # of prompts, up to their first token
    prefill_tokens: int  # in such a prompt


class DecodeSteps(msgspec.Struct, frozen=True):
    """Decode steps in which every sequence got a token, or several where guesses were right."""

    seconds: list[float]  # of each step
    tokens: int  # in all of them, of all sequences


class Prompts:
    """Pieces of a text, no two with the same beginning: what the prefix cache has would not be computed."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens, self._starts = tokens, count()

    def take(self, length: int) -> list[int]:
        """The next piece, of `length` tokens; a short text is repeated."""
        endless = chain.from_iterable(repeat(self._tokens))
        start = next(self._starts) % len(self._tokens)
        return list(islice(endless, start, start + length))


def measure_speed(core: "EngineCore", tokens: Sequence[int], batches: Sequence[int]) -> StepTimes:
    """Decode at each batch size and prefill, in turns: what disturbs the machine for a while hits all of them.

    Prompts are pieces of `tokens`. Where the model has room for short sequences only, they are shorter.
    """
    room, pace = core.limits.sequence_tokens, Pace()
    prompts = Prompts(tokens)
    times = StepTimes(decode={batch: [] for batch in batches}, prefill=[], prefill_tokens=min(_PREFILL, room - 1))
    for _ in range(_ROUNDS):
        for batch in batches:
            pieces = [prompts.take(min(_PROMPT, room // 4)) for _ in range(batch)]
            times.decode[batch].extend(decode_steps(core, pieces, pace).seconds)
        times.prefill.append(prefill_seconds(core, prompts.take(times.prefill_tokens)))
    return times


def decode_steps(core: "EngineCore", prompts: Sequence[list[int]], pace: Pace) -> DecodeSteps:
    """Time steps that give each of the prompts a token, all at once; none where the KV cache has no room for them."""
    requests = greedy_requests(prompts, min(pace.room, core.limits.sequence_tokens - max(map(len, prompts))))
    for request in requests:
        core.add(request)
    seconds: list[float] = []
    tokens = steps = 0
    while core.busy and len(seconds) < pace.steps and (len(seconds) < pace.fewest or sum(seconds) < pace.seconds):
        began = time.perf_counter()
        outputs = core.step()
        took = time.perf_counter() - began
        if len({output.request.id for output in outputs}) < len(requests):
            continue
        steps += 1
        if steps > _WARM_UP:
            seconds.append(took)
            tokens += len(outputs)
    for request in requests:
        core.abort(request.id)
    return DecodeSteps(seconds, tokens)


def prefill_seconds(core: "EngineCore", prompt: list[int]) -> float:
    """Seconds until the prompt has its first token, from an idle engine."""
    core.add(*greedy_requests([prompt], 1))
    began = time.perf_counter()
    while core.busy:
        core.step()
    return time.perf_counter() - began


def greedy_requests(prompts: Sequence[list[int]], max_tokens: int) -> list[Request]:
    """A greedy request for each prompt, named "0", "1", ...; it ends by its number of tokens only."""
    params = SamplingParams(max_tokens=max_tokens, temperature=0)
    return [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]


def memory_bandwidth(threads: int | None = None) -> float:
    """Bytes/s that so many threads read from memory; by default as many as PyTorch has.

    The best of several rounds, for whatever else runs only takes from it.
    """
    import torch

    before, best = torch.get_num_threads(), 0.0
    torch.set_num_threads(threads or before)
    numbers = torch.ones(_BANDWIDTH_BYTES // torch.int64.itemsize, dtype=torch.int64)
    for _ in range(_BANDWIDTH_ROUNDS):
        began = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (time.perf_counter() - began))
    torch.set_num_threads(before)
    return best
