"""Waiting for the jobs of the doctor: one question to Slurm for all of them, and a look into the folder of each."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ...core.errors import SlurmError, SlurminferError
from ...core.files import write_atomic
from ...core.job import JobStatus, Launcher
from ...core.site.machine import Network
from ...nodes.doctor.meeting import DONE
from .visit import Visit

_POLL_S = 1.0
_END_S = 15.0  # for tasks to see that they may end


class Round:
    """All visits together.

    Args:
        launcher: that has submitted the jobs.
        here: how this machine is connected.
        patience_s: how long a job may wait for its start.
        now: the clock, in Unix seconds.
        sleep: waits between two looks.
        on_look: gets the visits after each look.
    """

    def __init__(
        self,
        launcher: Launcher,
        here: Network,
        patience_s: float,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        on_look: Callable[[Sequence[Visit]], None] = lambda visits: None,
    ) -> None:
        self._launcher, self._here, self._patience_s = launcher, here, patience_s
        self._now, self._sleep, self._on_look = now, sleep, on_look

    def wait(self, visits: Sequence[Visit]) -> None:
        """Until every visit has an outcome. Whatever happens, no job outlives this. Raises RunDirectoryError."""
        living = {visit.job for visit in visits}
        try:
            going = list(visits)
            while going:
                for visit in self._look(going):
                    if visit.outcome != "seen":
                        self._cancel([visit.job])
                        living.discard(visit.job)
                self._on_look(visits)
                going = [visit for visit in going if visit.outcome is None]
                if going:
                    self._sleep(_POLL_S)
            living = self._let_end(living)
        finally:
            self._cancel(sorted(living))

    def _look(self, visits: Sequence[Visit]) -> list[Visit]:
        """Look at each once; those that are over."""
        try:
            statuses = self._launcher.observe([visit.job for visit in visits])
        except SlurmError:  # busy for a moment; the patience with each job bounds how long that can go on
            statuses = {}
        for visit in visits:
            self._visit(visit, statuses.get(visit.job))
        return [visit for visit in visits if visit.outcome is not None]

    def _visit(self, visit: Visit, status: JobStatus | None) -> None:
        now = self._now()
        visit.read(self._here)
        if status is not None:
            visit.note(status, now)
        visit.judge(status, now, self._patience_s)
        if visit.outcome == "seen":
            write_atomic(visit.folder / DONE, "")

    def _let_end(self, jobs: set[str]) -> set[str]:
        """Wait for jobs whose tasks may end; those that have not."""
        deadline = self._now() + _END_S
        while jobs and self._now() < deadline:
            try:
                statuses = self._launcher.observe(sorted(jobs))
            except SlurmError:
                return jobs
            jobs = {job for job in jobs if statuses[job].phase.is_living}
            if jobs:
                self._sleep(_POLL_S)
        return jobs

    def _cancel(self, jobs: Sequence[str]) -> None:
        with suppress(SlurminferError):  # they end at their time limit, a few minutes later
            self._launcher.cancel(jobs)
