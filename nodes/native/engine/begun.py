"""A step that the model is computing: which part of it is whose, and what is to become of its output."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..model.step import Chunk
from .pooling import PooledChunk
from .prompt_scoring import Rows
from .request import Request
from .scheduler import Slice
from .scheduling.step_budget import work_of
from .scheduling.step_time import StepWork


@dataclass(frozen=True, slots=True)
class Part:
    """One request's part of a step."""

    slice: Slice
    chunk: Chunk
    pooled: PooledChunk | None  # where it gives hidden states

    @classmethod
    def of(cls, slice: Slice, guesses: list[int]) -> "Part":
        """The tokens of a slice, and what is guessed to follow them."""
        request, pooled = slice.request, PooledChunk.of(slice)
        tokens = request.tokens[request.computed : request.computed + slice.count]
        rows = request.prompt_rows(slice.count) + slice.reaches_end + len(guesses)
        logits = 0 if request.pooling else rows
        pooling = request.pooling if pooled else None
        chunk = Chunk(tokens + guesses, request.computed, request.blocks, logits, request.in_prompt, pooling)
        return cls(slice, chunk, pooled)

    @property
    def rows(self) -> Rows:
        """What its rows of logits are for."""
        prompt = self.slice.request.prompt_rows(self.slice.count)
        return Rows(self.slice.request, prompt, self.chunk.num_logits - prompt)


class BegunStep:
    """What has to be known when the model has finished. `at`: time.perf_counter() of its begin."""

    def __init__(self, parts: Sequence[Part], guesses: dict[str, list[int]], at: float) -> None:
        self.slices = [part.slice for part in parts]
        self.rows = [part.rows for part in parts]  # of logits
        self.pooled = [part.pooled for part in parts if part.pooled is not None]  # in the order of their rows
        self.guesses, self.at = guesses, at
        self.work = work_of_step(self.slices, sum(map(len, guesses.values())))
        self.sampled: list[Request] = []  # those whose next token it gives
        self.embedded: list[Request] = []  # those whose embedding is complete after it
        for slice in self.slices:
            if slice.reaches_end:
                (self.sampled if slice.request.pooling is None else self.embedded).append(slice.request)


def work_of_step(slices: Sequence[Slice], guesses: int) -> StepWork:
    """The work of a step that is not yet computed, with so many draft tokens."""
    works = [work_of(slice.request, slice.count) for slice in slices]
    return StepWork(
        decodes=sum(work.decodes for work in works) + guesses,
        tokens=sum(work.tokens for work in works),
        pairs=sum(work.pairs for work in works),
        scored=sum(work.scored for work in works),
    )
