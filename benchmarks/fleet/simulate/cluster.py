"""A cluster of equal nodes with other people's jobs: first come, first served, with EASY backfill.

A job that fits starts. The first that does not fit gets the earliest time at which enough nodes will be free, by the
walltime limits of what runs; later jobs start before it if they do not move that time. So short jobs wait less.

Jobs of a low priority tier get what is left then, for as long as it is left, and give way as soon as another job wants
their nodes: to those it is as if they were not there.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_DEPTH = 150  # of the queue are looked at for backfill
_PATIENCE_S = 10 * 3600.0  # others submit no more where the queue would keep the whole cluster busy for longer


@dataclass(slots=True, eq=False)
class Job:
    """One job. Times are seconds since the simulation began."""

    nodes: int
    limit_s: float
    runs_s: float = math.inf  # of other people's: when it ends by itself
    is_low: bool = False  # it waits behind all others, and gives way to them
    submitted_at: float = 0.0
    started_at: float | None = None
    is_over: bool = False

    @property
    def ends_at(self) -> float:
        """The end of its walltime, once it runs."""
        return math.inf if self.started_at is None else self.started_at + self.limit_s


@dataclass(slots=True)
class Cluster:
    """Nodes and queue.

    Args:
        nodes: how many there are.
        arrivals: other people's jobs and when they are submitted, in order.
        maintenance: from when to when all nodes are reserved, in order.
    """

    nodes: int
    arrivals: Iterator[tuple[float, Job]]
    maintenance: Sequence[tuple[float, float]]
    queue: list[Job] = field(default_factory=list)
    low: list[Job] = field(default_factory=list)  # wait
    used: int = 0  # not by jobs of low priority
    lent: int = 0  # by these
    down: int = 0
    preempted: list[Job] = field(default_factory=list)  # since somebody has taken them out of here
    others: int = 0  # jobs of other people that have started
    others_waited_s: float = 0.0  # in the queue, all of them together
    node_s: float = 0.0  # used by jobs, in all
    _next: tuple[float, Job] | None = None
    _held: list[tuple[float, int, Job]] = field(default_factory=list)
    _running: list[tuple[float, int, Job]] = field(default_factory=list)  # by the end of the walltime
    _ends: list[tuple[float, int, Job]] = field(default_factory=list)
    _repairs: list[float] = field(default_factory=list)
    _lent: list[Job] = field(default_factory=list)  # of low priority that run, the latest last
    _hole: tuple[int, float, int] = (0, -1.0, 0)  # free nodes, from when the next job in the queue wants them, the rest
    _count: int = 0
    _asked_s: float = 0.0  # node-seconds of other people's jobs in the queue
    _has_changed: bool = True
    _has_low_changed: bool = False
    _window: tuple[float, float] | None = None

    def submit(self, job: Job, eligible_at: float) -> None:
        """Put a job into the queue, where it counts from `eligible_at` on."""
        self._count += 1
        job.submitted_at = eligible_at
        heapq.heappush(self._held, (eligible_at, self._count, job))

    def room(self, nodes: int, limit_s: float, now: float) -> int:
        """How many more jobs of low priority would start at once."""
        free, shadow, extra = self._hole
        if self._window is not None and now + limit_s > self._window[0]:
            return 0
        is_timely = shadow < 0 or now + limit_s <= shadow
        return max(0, (free if is_timely else min(free, extra)) - self.lent) // nodes

    def end(self, job: Job) -> None:
        """Take a job out of the queue, or from its nodes."""
        if job.is_over:
            return
        job.is_over = True
        self._note_change(job)
        if job.started_at is None:
            waiting = self.low if job.is_low else self.queue
            if job in waiting:
                waiting.remove(job)
            return
        if job.is_low:
            self._lent.remove(job)
            self.lent -= job.nodes
            return
        self.used -= job.nodes
        index = bisect_left(self._running, job.ends_at, key=lambda one: one[0])
        while self._running[index][2] is not job:
            index += 1
        del self._running[index]

    def _note_change(self, job: Job) -> None:
        """Have the scheduler look at the queue; for a job of low priority only at those of its kind."""
        self._has_changed = self._has_changed or not job.is_low
        self._has_low_changed = True

    def lose_node(self, until: float) -> None:
        """Let a node be down until then."""
        self.down += 1
        heapq.heappush(self._repairs, until)

    def next_maintenance(self, now: float) -> tuple[float, float] | None:
        """The window that is, or comes next."""
        return next((window for window in self.maintenance if window[1] > now), None)

    def tick(self, now: float, tick_s: float) -> None:
        """Let jobs end, come and start."""
        while self._ends and self._ends[0][0] <= now:
            self.end(heapq.heappop(self._ends)[2])
        while self._repairs and self._repairs[0] <= now:
            heapq.heappop(self._repairs)
            self.down -= 1
            self._has_changed = True
        self._arrive(now)
        window = self.next_maintenance(now)
        if window != self._window:
            self._window, self._has_changed = window, True
        if self._has_changed:
            self._has_changed = False
            self._hole = self._schedule(now)
            self._has_low_changed = True
        if self._has_low_changed:
            self._has_low_changed = False
            self._lend(now)
        self.node_s += (self.used + self.lent) * tick_s

    def _arrive(self, now: float) -> None:
        self._next = self._next or next(self.arrivals, None)
        while self._next is not None and self._next[0] <= now:
            if self._asked_s < _PATIENCE_S * self.nodes:
                self.submit(self._next[1], self._next[0])
                self._asked_s += _size(self._next[1])
            self._next = next(self.arrivals, None)
        while self._held and self._held[0][0] <= now:
            job = heapq.heappop(self._held)[2]
            if not job.is_over:
                (self.low if job.is_low else self.queue).append(job)
                self._note_change(job)

    def _schedule(self, now: float) -> tuple[int, float, int]:
        """Start what may start; free nodes, from when the first job that waits wants them, and what is left then."""
        window = self._window
        if window is not None and window[0] <= now:
            return 0, -1.0, 0
        longest = math.inf if window is None else window[0] - now
        free, shadow, extra = self.nodes - self.down - self.used, -1.0, 0
        if free <= 0:
            return 0, -1.0, 0
        started = set()
        for job in self.queue[:_DEPTH]:
            if job.limit_s > longest:
                continue
            is_free = job.nodes <= free
            if is_free and (shadow < 0 or now + job.limit_s <= shadow or job.nodes <= extra):
                free -= job.nodes
                extra -= job.nodes if 0 <= shadow < now + job.limit_s else 0
                started.add(job)
                self._start(job, now)
            elif shadow < 0:
                shadow, extra = self._shadow(job.nodes, free)
            if free == 0:
                break
        if started:
            self.queue = [job for job in self.queue if job not in started]
        return free, shadow, extra

    def _lend(self, now: float) -> None:
        """Take nodes back from jobs of low priority, the latest first, or let more of these start."""
        while self._lent and self.lent > self.nodes - self.down - self.used:
            job = self._lent[-1]
            self.end(job)
            self.preempted.append(job)
        for job in list(self.low):
            if self.room(job.nodes, job.limit_s, now):
                self.low.remove(job)
                job.started_at = now
                self._lent.append(job)
                self.lent += job.nodes

    def _shadow(self, nodes: int, free: int) -> tuple[float, int]:
        """When so many nodes will be free, and how many will then be left."""
        for at, _, job in self._running:
            free += job.nodes
            if free >= nodes:
                return at, free - nodes
        return math.inf, 0

    def _start(self, job: Job, now: float) -> None:
        job.started_at = now
        self._asked_s -= _size(job)
        self.used += job.nodes
        if job.runs_s < math.inf:
            self.others += 1
            self.others_waited_s += now - job.submitted_at
        self._count += 1
        insort(self._running, (job.ends_at, self._count, job))
        if job.runs_s < math.inf:
            heapq.heappush(self._ends, (now + min(job.runs_s, job.limit_s), self._count, job))


def _size(job: Job) -> float:
    """Node-seconds of other people's jobs."""
    return job.nodes * min(job.runs_s, job.limit_s) if job.runs_s < math.inf else 0.0
