"""What arithmetic says of a decode step over several ranks, to be held against what is measured.

floor          bytes of all weights / bandwidth of the CPUs that read them at once
all-reduces    two a layer, alpha + beta * message each: 2(p-1) latencies and 2(p-1)/p of the message in a ring
stages         (p-1) messages and one of logits; of m steps in flight, all take (m+p-1) times what a stage takes
"""

from collections.abc import Mapping
from dataclasses import dataclass

from slurminfer.core.site.communication import CommFit
from slurminfer.core.workers.parallel import ParallelDegrees
from slurminfer.quant.checkpoint.config import ModelConfig

_ITEM = 4  # bytes of what ranks tell each other, float32


@dataclass(frozen=True)
class Link:
    """How long messages between two ranks take, by the lines through measured times."""

    all_reduce: CommFit
    message: CommFit  # from one to the other


@dataclass(frozen=True)
class Machine:
    """What a prediction rests on; all of it is measured in the same run."""

    cpus: int
    bandwidth: Mapping[int, float]  # threads that read -> bytes a second
    within: Link  # a node
    between: Link | None  # nodes; None: there is one


@dataclass(frozen=True)
class Predicted:
    """What the formulas say of one decode step; ServedEngine.timed measures the same figures."""

    step_ms: float
    communication_ms: float  # without waiting for a rank that has more to do
    tokens_s: float
    bubble: float  # of a stage's time, what it waits for others: (p-1)/(m+p-1)


def readers(degrees: ParallelDegrees, cpus: int) -> int:
    """Threads that read weights at once: those of one stage's ranks."""
    return min(degrees.tensor_parallel * max(cpus // degrees.ranks, 1), cpus)


def predict(degrees: ParallelDegrees, weights: int, model: ModelConfig, batch: int, machine: Machine) -> Predicted:
    """Predict steps that read `weights` bytes in all and decode `batch` sequences."""
    tensor, stages = degrees.tensor_parallel, degrees.pipeline_parallel
    in_flight = min(stages, batch)
    rows = batch / in_flight
    alone = machine.between is None or degrees.ranks == 1  # on a node; else every node has half of the ranks
    sums = machine.within if alone or tensor <= degrees.ranks // 2 else machine.between
    messages = machine.within if alone else machine.between
    assert sums is not None and messages is not None
    communication = 0.0
    if tensor > 1:
        communication += 2 * model.num_layers * sums.all_reduce.seconds(rows * model.hidden_size * _ITEM)
    if degrees.ranks > 1:
        communication += messages.message.seconds(rows * model.vocab_size * _ITEM / tensor)
    communication += (stages - 1) * messages.message.seconds(rows * model.hidden_size * _ITEM)
    step = weights / machine.bandwidth[readers(degrees, machine.cpus)] + communication
    together = (in_flight + stages - 1) * step / stages
    return Predicted(1000 * step, 1000 * communication, batch / together, (stages - 1) / (in_flight + stages - 1))
