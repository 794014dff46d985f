"""What others do: fixed fleets whose jobs go back to the queue, and chains of jobs."""

from dataclasses import dataclass

from .chance import DAY, HOUR
from .workers import Fleet, Worker

_MORNING_S = 9 * HOUR


@dataclass(slots=True, eq=False)
class Fixed(Fleet):
    """Fixed fleets. Nobody replaces a worker that has failed, until somebody looks at nine in the morning.

    At the end of its walltime a worker drains, and its job goes back to the queue.
    """

    def act(self, now: float, tick_s: float, number: int) -> None:
        """Submit the workers, and every morning those that are missing."""
        if number == 0 or 0 <= now % DAY - _MORNING_S < tick_s:
            self.repair(now)

    def repair(self, now: float) -> None:
        """End what does not serve any more, and submit what is missing."""
        for case in self.cases:
            for worker in self.of(case):
                if worker.fault is not None:
                    self.end(worker, now, "repaired")
            for _ in range(case.fixed - len(self.of(case))):
                self.submit(case, now, case.plan.time_s)


@dataclass(slots=True, eq=False)
class Chain(Fixed):
    """As many chains of jobs. The next job of a chain waits for the end of the one before it, then in the queue.

    A job serves until it is killed at the end of its walltime. Somebody ends jobs that hang at nine in the morning.
    """

    drains: bool = False

    def ended(self, worker: Worker, now: float, why: str) -> None:
        """Let the next job of the chain go."""
        self.submit(worker.case, now, worker.case.plan.time_s)
