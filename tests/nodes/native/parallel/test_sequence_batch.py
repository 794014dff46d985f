"""Attention of ranks that share the tokens, each a thread: what all keys give, wherever they lie.

On a CPU by PyTorch; with SLURMINFER_TEST_DEVICE=cuda, or TRITON_INTERPRET=1 and Triton, by the kernels for GPUs.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from slurminfer.nodes.native.model.kv_cache import KVCache
from slurminfer.nodes.native.model.parallel.sequence import SequenceGroup
from slurminfer.nodes.native.model.parallel.sequence_batch import make_sequence_batch
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.quant.kv import Plain

from ..model.conftest import DEVICE
from .test_sequence import BLOCK, LONGEST, random_steps

pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy's, of Triton's interpreter
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
# How many ranks, which random steps, and how many. The interpreted ones are of few tokens: a prompt, then pieces of 1,
# 3 and 17 tokens of five sequences that share its blocks, then one more token.
CASES = [(2, 2, 6), (3, 3, 6)] if "TRITON_INTERPRET" not in os.environ else [(3, 2026, 3)]
device = torch.device(DEVICE)


class Shape:
    """What KVCache wants to know of a model."""

    num_layers, num_kv_heads, head_dim = 1, KV_HEADS, HEAD_DIM


class Meeting:
    """Exchanges of ranks that are threads; between them, one computes at a time: Triton's interpreter wants that."""

    def __init__(self, size: int) -> None:
        self._barrier, self._turn = threading.Barrier(size, timeout=60), threading.Lock()
        self._sent: list[Sequence[torch.Tensor]] = [()] * size

    def run(self, rank: int, work: Callable[[int], list[torch.Tensor]]) -> list[torch.Tensor]:
        with self._turn:
            try:
                return work(rank)
            except BaseException:
                self._barrier.abort()
                raise

    def exchange(self, rank: int, x: torch.Tensor, out: torch.Tensor, sent: Sequence[int], got: Sequence[int]) -> None:
        self._sent[rank] = x.split(list(sent))
        self._wait()
        for part, each in zip(out.split(list(got)), self._sent, strict=True):
            part.copy_(each[rank])
        self._wait()

    def _wait(self) -> None:
        self._turn.release()
        try:
            self._barrier.wait()
        finally:
            self._turn.acquire()


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize(("size", "seed", "count"), CASES)
@pytest.mark.parametrize("window", [None, 9])
def test_attention_is_that_to_all_keys(size, seed, count, window):
    random = torch.Generator().manual_seed(size)
    width = HEADS + 2 * KV_HEADS
    of_token = torch.randn(199, width, HEAD_DIM, generator=random)
    of_place = torch.randn(LONGEST, width, HEAD_DIM, generator=random)
    steps = [
        [Chunk(tokens, start, blocks, len(tokens)) for tokens, start, blocks, _ in step]
        for step in random_steps(seed, steps=count)
    ]
    meeting = Meeting(size)

    def work(rank: int) -> list[torch.Tensor]:
        def exchange(x: torch.Tensor, out: torch.Tensor, sent: Sequence[int], got: Sequence[int]) -> None:
            meeting.exchange(rank, x, out, sent, got)

        group = SequenceGroup(rank, size, exchange)
        cache = KVCache(Shape(), 240 // size + 1, BLOCK, Plain(HEAD_DIM, torch.float32), device)  # type: ignore[arg-type]
        found = []
        for chunks in steps:
            batch = make_sequence_batch(chunks, cache, {window}, group, HEADS)
            qkv = (of_token[batch.tokens.cpu()] + of_place[batch.positions.cpu()]).to(device)
            unturned = torch.ones(len(qkv), 1, HEAD_DIM, device=device)
            attended = batch.attend(qkv, (unturned, torch.zeros_like(unturned)), 0, window, cache)
            found.append(batch.wanted(attended).cpu().clone())
        return found

    with ThreadPoolExecutor(size) as threads:
        first, *others = [done.result() for done in [threads.submit(meeting.run, rank, work) for rank in range(size)]]
    assert not any(len(rows) for found in others for rows in found)
    written: dict[tuple[int, int], int] = {}  # block and place in it: the token
    for chunks, found in zip(steps, first, strict=True):
        for chunk in chunks:
            places = range(chunk.start, chunk.start + len(chunk.tokens))
            written |= {
                (chunk.blocks[place // BLOCK], place % BLOCK): token
                for place, token in zip(places, chunk.tokens, strict=True)
            }
        rows = iter(found)
        for chunk in chunks:
            length = chunk.start + len(chunk.tokens)
            tokens = [written[chunk.blocks[place // BLOCK], place % BLOCK] for place in range(length)]
            q, k, v = (of_token[tokens] + of_place[:length]).split((HEADS, KV_HEADS, KV_HEADS), 1)
            k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
            for place in range(chunk.start, length):
                seen = slice(0 if window is None else max(place + 1 - window, 0), place + 1)
                weights = (torch.einsum("hd,thd->ht", q[place], k[seen]) * HEAD_DIM**-0.5).softmax(-1)
                expected = torch.einsum("ht,thd->hd", weights, v[seen]).flatten()
                torch.testing.assert_close(next(rows), expected, rtol=1e-5, atol=1e-5)
        assert next(rows, None) is None
