"""A model whose parts several processes compute: rank 0 is a `Model`, the other ranks compute what it broadcasts."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .....core.errors import EngineError, SlurminferError
from .....core.machine.cpus import allowed_cpus
from .....quant.checkpoint.config import ModelConfig, read_config
from ...options import EngineOptions, ParallelOptions
from ..loading import device_of, load_part
from ..runner import Runner
from ..step import Chunk, StepOutput
from .chunk_codec import decode, encode
from .model_part import ModelPart
from .ranks import PendingLogits, Ranks
from .rendezvous.failure_detector import FailureDetector
from .rendezvous.inherited import rank_secret
from .rendezvous.key_table import Ask
from .rendezvous.lifeline import Lifeline
from .rendezvous.messages import ChildExits
from .sequence import SequenceGroup
from .shard import Shard, make_shard

_MEETING_S = 60.0
_NEWS_S = 3.0  # within which whoever has lost a rank hears which one it was


@dataclass(frozen=True)
class _Team:
    """This rank's part of the model, and its communication with the other ranks."""

    runner: Runner
    ranks: Ranks
    config: ModelConfig  # of the whole model
    shard: Shard
    sequence: SequenceGroup | None
    vocab: Sequence[int]  # rows of lm_head of each tensor rank of a stage

    def compute(self, chunks: Sequence[Chunk]) -> StepOutput | None:
        """Compute this rank's part of a step.

        Returns what the step gives at rank 0 if it is in the last stage, else None.
        Raises RuntimeError where a rank is gone.
        """
        x = None
        if not self.shard.is_first:
            x = self.ranks.recv_from_previous_stage(
                self._rows(chunks), self.config.hidden_size, self.runner.hidden_dtype
            )
        y = self.runner.compute(chunks, x)
        if not self.shard.is_last:
            self.ranks.send_to_next_stage(y.rows)
            return None
        logits = self.ranks.gather_logits(y.rows, self.vocab)
        if y.pooled is not None:
            self.ranks.send_pooled(y.pooled)
        return None if logits is None else StepOutput(logits, y.pooled)

    def _rows(self, chunks: Sequence[Chunk]) -> int:
        """Return how many rows of a step this rank computes."""
        count = sum(len(chunk.tokens) for chunk in chunks)
        if self.sequence is None:
            return count
        share = self.sequence.share(count)
        return int(share.stop - share.start)


@dataclass(frozen=True)
class _Pending:
    """A step whose last stage is elsewhere."""

    logits: PendingLogits
    pooled: PendingLogits | None


class ParallelModel:
    """A model over several processes, as rank 0 runs it: it broadcasts each step to the other ranks."""

    def __init__(self, team: _Team, detector: FailureDetector) -> None:
        self._team, self._detector = team, detector
        runner = team.runner
        self.vocab_size, self.context_length = team.config.vocab_size, runner.context_length
        self.block_size = runner.block_size
        self.num_blocks = runner.num_blocks * team.ranks.place.sequence_parallel
        self.depth = team.ranks.place.pipeline_parallel
        self._begun: deque[StepOutput | _Pending] = deque()

    @property
    def compiled(self) -> bool:
        """Whether steps are computed by the compiled library."""
        return self._team.runner.compiled

    @property
    def communication_s(self) -> float:
        """Seconds that rank 0 spent in communication, waiting for other ranks included."""
        return self._team.ranks.seconds

    @torch.inference_mode()
    def begin(self, chunks: Sequence[Chunk]) -> None:
        """Broadcast a step and begin to compute it. Raises EngineError where a rank is gone."""
        with self._named_failures():
            self._detector.broadcast(encode(chunks))
            output = self._team.compute(chunks)
            self._begun.append(self._expect(chunks) if output is None else output)

    @torch.inference_mode()
    def finish(self) -> StepOutput:
        """Wait for the oldest unfinished step and return its result. Raises EngineError where a rank is gone."""
        begun, ranks = self._begun.popleft(), self._team.ranks
        with self._named_failures():
            if isinstance(begun, StepOutput):
                return begun
            logits = ranks.wait_logits(begun.logits)
            return StepOutput(logits, None if begun.pooled is None else ranks.wait_logits(begun.pooled))

    def forward(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """Compute one step, as `Model.forward` describes. Raises EngineError where a rank is gone."""
        self.begin(chunks)
        return self.finish().rows

    def _expect(self, chunks: Sequence[Chunk]) -> "_Pending":
        """Begin to receive what the last stage will send of a step."""
        ranks, pooled = self._team.ranks, sum(chunk.pooling is not None for chunk in chunks)
        return _Pending(
            ranks.irecv_logits(sum(chunk.num_logits for chunk in chunks), self._team.vocab),
            ranks.irecv_pooled(pooled, self._team.config.hidden_size) if pooled else None,
        )

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._detector.wait_for_failure(_NEWS_S) or error from error

    def close(self) -> None:
        """End the other ranks."""
        self._detector.close()


def load_leader(
    options: EngineOptions, place: ParallelOptions, child_exits: ChildExits, on_failure: Callable[[EngineError], None]
) -> ParallelModel:
    """Load rank 0's part of the model and wait until all other ranks are connected.

    `on_failure` is called in a thread of its own when a rank is gone; `child_exits` are those of this process's
    children. Raises as `load_model`, and EngineError for a model that cannot be cut so.
    """
    config = read_config(options.model)
    met: list[Ranks] = []

    def lose(error: EngineError) -> None:
        for ranks in met:
            ranks.abort()
        on_failure(error)

    detector = FailureDetector(str(place.rendezvous), place.ranks - 1, rank_secret(), child_exits, lose)
    try:
        ranks = _meet(options, place, detector.ask)
        met.append(ranks)
        team = _load(options, config, ranks)
        detector.wait_for_ranks(_MEETING_S)
        return ParallelModel(team, detector)
    except RuntimeError as error:
        raise detector.wait_for_failure(_NEWS_S) or error from error


def run_follower(options: EngineOptions, place: ParallelOptions, child_exits: ChildExits) -> None:
    """Load the part of a rank other than 0, and compute what rank 0 broadcasts until it ends this process."""
    config = read_config(options.model)
    lifeline = Lifeline(str(place.rendezvous), place.rank, rank_secret(), child_exits)
    try:
        ranks = _meet(options, place, lifeline.ask)
        team = _load(options, config, ranks)
        lifeline.report_loaded()
        with torch.inference_mode():
            while True:
                team.compute(decode(lifeline.recv()))
    except SlurminferError as error:
        lifeline.report_failure(str(error))
        raise
    except Exception as error:
        time.sleep(_NEWS_S)  # if another rank was the first to go, rank 0 ends this process meanwhile
        lifeline.report_failure(repr(error))
        raise


def _meet(options: EngineOptions, place: ParallelOptions, ask: Ask) -> Ranks:
    return Ranks(place, device_of(options.device), options.threads or allowed_cpus().cores, ask)


def _load(options: EngineOptions, config: ModelConfig, ranks: Ranks) -> _Team:
    place = ranks.place
    tensor, first = place.tensor_parallel, place.stage * place.tensor_parallel
    shards = [make_shard(config, tensor, place.pipeline_parallel, first + rank) for rank in range(tensor)]
    shard, sequence = shards[place.tensor_rank], None
    if place.sequence_parallel > 1:
        sequence = SequenceGroup(place.sequence_rank, place.sequence_parallel, ranks.all_to_all)
    part = ModelPart(
        whole=config, shard=shard, reduce=ranks.all_reduce if tensor > 1 else None, sequence=sequence,
        all_reduce_min=ranks.all_reduce_min, memory=ranks.all_reduce.memory, ranks_here=place.ranks_here,
    )  # fmt: skip
    runner = load_part(options, part)
    heads = f"{len(shard.heads)} heads over {len(shard.kv_heads)}, {len(shard.inner)} neurons"
    layers = f"layers {shard.layers.start} to {shard.layers.stop - 1}"
    tokens = "" if sequence is None else f", part {sequence.rank + 1} of {sequence.size} of the tokens"
    print(f"rank {place.rank}: {layers}, {heads}{tokens}", file=sys.stderr, flush=True)
    return _Team(runner, ranks, config, shard, sequence, [len(each.vocab) for each in shards])
