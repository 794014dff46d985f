"""What happens by chance: drawn before the simulation, so that it is the same for every strategy."""

import math
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from .cluster import Job

HOUR, DAY = 3600.0, 86_400.0
_LONGEST_H = 24.0


class Fault(StrEnum):
    """What may happen to a worker, and how often a day."""

    NODE = "node"  # its node dies
    CRASH = "crash"  # its engine or agent dies
    HANG = "hang"  # its engine computes nothing any more, and says that it is well
    SILENCE = "silence"  # its node stands still, the job runs on
    PREEMPT = "preempt"  # of preemptible pools


PER_DAY = {Fault.NODE: 1 / 60, Fault.CRASH: 1 / 10, Fault.HANG: 1 / 40, Fault.SILENCE: 1 / 60, Fault.PREEMPT: 1.0}
MOST_WORKERS = 64  # an event strikes the worker of its number, if there are so many


@dataclass(frozen=True)
class Event:
    """A fault at a time. `draw`: from 0 to 1, which worker it strikes, if any."""

    at: float
    fault: Fault
    draw: float


def events(seed: str, days: float, kinds: Collection[Fault] = PER_DAY) -> list[Event]:
    """The faults of these kinds, in order."""
    chance, found = random.Random(f"{seed} faults"), []
    for fault, per_day in PER_DAY.items():
        if fault not in kinds:
            continue
        at = 0.0
        while (at := at + chance.expovariate(per_day * MOST_WORKERS / DAY)) < days * DAY:
            found.append(Event(at, fault, chance.random()))
    return sorted(found, key=lambda event: event.at)


def daily(at: float) -> float:
    """The daily curve, 0.4 at four in the morning and 1.6 at four in the afternoon, less at weekends."""
    curve = 1 - 0.6 * math.cos((at / HOUR - 4) / 24 * 2 * math.pi)
    return curve * (0.6 if at // DAY % 7 >= 5 else 1.0)


def background(seed: str, nodes: int, utilization: float, days: float) -> Iterator[tuple[float, Job]]:
    """Other people's jobs, which would use this part of the nodes on average."""
    chance, at = random.Random(f"{seed} background"), 0.0
    sample = [_job(random.Random(f"sample {number}")) for number in range(4000)]
    mean_node_s = sum(job.nodes * min(job.runs_s, job.limit_s) for job in sample) / len(sample)
    mean_curve = 0.6 * 2 / 7 + 5 / 7
    rate = nodes * utilization / mean_node_s / mean_curve
    while at < days * DAY:
        at += chance.expovariate(rate * 1.6)
        if chance.random() * 1.6 < daily(at):
            yield at, _job(chance)


def requests(seed: str, per_s: npt.NDArray[np.float64], tick_s: float) -> npt.NDArray[np.int64]:
    """How many come in each tick, of so many a second."""
    generator = np.random.default_rng(list(f"{seed} requests".encode()))
    return generator.poisson(per_s * tick_s)


def curve(seed: str, days: float, tick_s: float) -> npt.NDArray[np.float64]:
    """The daily curve from 0 to about 1, with noise of some minutes and a few peaks of half an hour."""
    ticks = int(days * DAY / tick_s)
    generator = np.random.default_rng(list(f"{seed} curve".encode()))
    times = np.arange(ticks) * tick_s
    weekday = np.where(times // DAY % 7 >= 5, 0.6, 1.0)
    smooth = (1 - 0.8 * np.cos((times / HOUR - 4) / 24 * 2 * np.pi)) / 1.8 * weekday
    noise = np.convolve(generator.normal(0, 1, ticks + 19), np.ones(20) / np.sqrt(20), "valid")
    found = smooth * np.exp(0.1 * noise)
    for begin in generator.integers(0, ticks, int(days * 0.7)):
        found[begin : begin + int(1800 / tick_s)] *= 2.0
    return np.minimum(found, 1.25)


def sessions(seed: str, days: float, tick_s: float) -> npt.NDArray[np.float64]:
    """1 while somebody works, 0 between: some sessions a day, of half an hour to three hours."""
    chance, found, at = random.Random(f"{seed} sessions"), np.zeros(int(days * DAY / tick_s)), 0.0
    while (at := at + chance.expovariate(4 / DAY)) < days * DAY:
        until = at + chance.uniform(0.5, 3) * HOUR
        found[int(at / tick_s) : int(until / tick_s)] = 1.0
        at = until
    return found


def _job(chance: random.Random) -> Job:
    size = chance.random()
    most = 4 if size < 0.5 else 32 if size < 0.85 else 128
    runs_h = min(_LONGEST_H, chance.lognormvariate(0.7, 1.0))
    limit_h = min(_LONGEST_H, math.ceil(runs_h * chance.uniform(1.0, 3.0)))
    return Job(nodes=chance.randint(max(1, most // 4), most), limit_s=limit_h * HOUR, runs_s=runs_h * HOUR)
