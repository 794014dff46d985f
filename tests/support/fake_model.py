"""A model that computes nothing, for tests of the engine around it.

Its KV cache holds token ids, and the next token is a function of the history that it reads back from the blocks. A
wrong block, a block overwritten or a token skipped changes what it says.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.step import Chunk, StepOutput
from slurminfer.nodes.native.options import EngineOptions, Speculative
from slurminfer.quant.checkpoint.embedding import Pooling

VOCAB = 17
END = 3


class FakeModel:
    """Deterministic, and strict about what it is handed."""

    compiled = False
    communication_s = 0.0

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        context_length: int = 10_000,
        *,
        errs: int = 0,
        depth: int = 1,
        vocab_size: int = VOCAB,
    ) -> None:
        """It says something else every `errs` tokens or so, and computes up to `depth` steps at once.

        With another `vocab_size`, all tokens have some chance.
        """
        self.depth = depth
        self._begun: deque[tuple[list[Sequence[int]], StepOutput]] = deque()
        self.vocab_size, self.context_length, self._errs = vocab_size, context_length, errs
        self.num_blocks, self.block_size = num_blocks, block_size
        self._cache: list[int | None] = [None] * (num_blocks * block_size)
        self.steps: list[list[Chunk]] = []

    def close(self) -> None:
        """There is nobody else."""

    def begin(self, chunks: Sequence[Chunk]) -> None:
        sequences = [chunk.blocks for chunk in chunks]
        assert len(self._begun) < self.depth
        assert not any(one is other for step, _ in self._begun for one in step for other in sequences), "in two steps"
        self._begun.append((sequences, StepOutput(self.forward(chunks), self._pooled(chunks))))

    def finish(self) -> StepOutput:
        return self._begun.popleft()[1]

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        assert chunks, "an empty step"
        self.steps.append(list(chunks))
        written: set[int] = set()
        for chunk in chunks:
            assert chunk.tokens
            for offset, token in enumerate(chunk.tokens):
                slot = self._slot(chunk, chunk.start + offset)
                # A draft computes what sequences share once for each.
                assert slot not in written or (self._errs and self._cache[slot] == token), "two write one place"
                written.add(slot)
                self._cache[slot] = token
        logits = torch.zeros(sum(chunk.num_logits for chunk in chunks), self.vocab_size)
        ends = [
            (chunk, chunk.start + len(chunk.tokens) - back)
            for chunk in chunks
            for back in reversed(range(chunk.num_logits))
        ]
        for row, (chunk, length) in zip(logits, ends, strict=True):
            history = [self._cache[self._slot(chunk, position)] for position in range(length)]
            wrong = self._errs and hash((*history, "wrong")) % self._errs == 0
            if self.vocab_size != VOCAB:
                seed = hash((*history, bool(wrong))) & 0x7FFF_FFFF
                row.copy_(3 * torch.randn(self.vocab_size, generator=torch.Generator().manual_seed(seed)))
            else:
                row[(next_token(history) + int(wrong)) % VOCAB] = 1
        return logits

    def _pooled(self, chunks: Sequence[Chunk]) -> torch.Tensor | None:
        """A token's hidden state is its number, its position and a one."""
        rows = []
        for chunk in chunks:
            states = [[float(token), float(chunk.start + place), 1.0] for place, token in enumerate(chunk.tokens)]
            if chunk.pooling is Pooling.MEAN:
                rows.append([sum(column) for column in zip(*states, strict=True)])
            elif chunk.pooling is not None:
                rows.append(states[-1 if chunk.pooling is Pooling.LAST else 0])
        return torch.tensor(rows) if rows else None

    def _slot(self, chunk: Chunk, position: int) -> int:
        return chunk.blocks[position // self.block_size] * self.block_size + position % self.block_size


def next_token(history: Sequence[int | None]) -> int:
    return hash(tuple(history)) % VOCAB


def alone(prompt: Sequence[int], max_tokens: int, end: int | None = END) -> list[int]:
    """What the fake must say to `prompt`."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens and (len(tokens) == len(prompt) or tokens[-1] != end):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def make_core(
    model: FakeModel, *, running: int = 4, budget: int = 16, method: Speculative = "none", context: int = 10_000
) -> EngineCore:
    """With `method` draft, by a model that errs in a third of its guesses and has room for `context` tokens."""
    options = EngineOptions(
        model=Path(), max_running_requests=running, max_batch_tokens=budget, speculative=method,
        draft_model=Path() if method == "draft" else None, draft_tokens=4,
    )  # fmt: skip
    draft = None
    if method == "draft":
        draft = FakeModel(model.num_blocks, model.block_size, context, errs=3, vocab_size=model.vocab_size)
    core = EngineCore(model, options, draft)
    if core._speculation is not None:  # whether guesses pay is another test's matter
        budget_ = core._speculation._budget
        budget_.share = lambda ids, room: [min(4, max(room - 4 * i, 0)) for i in range(len(ids))]  # type: ignore[method-assign]
    return core


def make_request(id: str, prompt: Sequence[int], max_tokens: int, end: int | None = END) -> Request:
    ends = frozenset() if end is None else frozenset([end])
    params = SamplingParams(max_tokens=max_tokens, temperature=0, stop_token_ids=ends)
    return Request(id, prompt, params)


def run(core: EngineCore) -> dict[str, list[int]]:
    """Step until nothing is left; the tokens of each request."""
    tokens: dict[str, list[int]] = {}
    steps = 0
    while core.busy:
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.token)
        steps += 1
        assert steps < 5000, "it hangs"
    return tokens
