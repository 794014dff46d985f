"""How busy a worker is, and how long a request would take there."""

import math
from collections.abc import Sequence

from .policy import RoutedRequest, Worker

# How far a worker's load may be above the mean, while that leaves it within its capacity; and relative to the mean.
_ABOVE_MEAN, _TIMES_MEAN = 0.6, 1.5
# The same relative to the mean, where all have much to do but one has less than a half of the mean.
_TIMES_MEAN_BESIDE_IDLE = 1.25
_MUCH = 0.7


def load(worker: Worker) -> float:
    """Requests in flight relative to what it may compute at once."""
    return worker.in_flight / worker.usable_capacity


def least_loaded(workers: Sequence[Worker]) -> Worker:
    """The worker with the least load; of equals the one that was chosen the longest ago. `workers` is not empty."""
    best, least = workers[0], math.inf
    for worker in workers:
        load = worker.in_flight / worker.usable_capacity
        if load < least or (load == least and worker.turn < best.turn):
            best, least = worker, load
    return best


def mean_load(workers: Sequence[Worker]) -> float:
    """The load that all would have if the requests in flight, and one more, were spread evenly."""
    return (sum(worker.in_flight for worker in workers) + 1) / sum(worker.usable_capacity for worker in workers)


def most_load(mean: float, least: float) -> float:
    """The load above which a worker gets no more for what is in its cache, by the mean and the least load of all."""
    if mean >= _MUCH and least < mean / 2:
        return mean * _TIMES_MEAN_BESIDE_IDLE
    return max(min(mean + _ABOVE_MEAN, 1.0), mean * _TIMES_MEAN)


def queue_wait(worker: Worker, output_tokens: int) -> float:
    """Seconds until the worker would begin with a request: prompts before it, and requests beyond its capacity.

    output_tokens: what an answer has; those in flight are taken to be as long as the one to be sent.
    """
    capacity = worker.usable_capacity
    wait = worker.pending_tokens / worker.prefill_rate
    excess = worker.in_flight + 1 - capacity
    if excess > 0:
        wait += excess / capacity * output_tokens / worker.decode_rate
    return wait


def duration(request: RoutedRequest, worker: Worker) -> float:
    """Seconds until the worker would have answered the request, if nothing of the prompt is in its cache."""
    prefill = request.input_tokens / worker.prefill_rate
    return queue_wait(worker, request.output_tokens) + prefill + request.output_tokens / worker.decode_rate
