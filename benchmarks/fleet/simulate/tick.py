"""How long a look of the controller takes at many workers, with a launcher that answers from memory."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from slurminfer.core.job import JobPhase, JobRequest, JobStatus
from slurminfer.core.records import ROUTER, DeploymentRecord, JobRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet import controller as controller_module
from slurminfer.jobs.fleet.controller import Controller
from slurminfer.jobs.fleet.rules.decide import decide

_LOOKS = 5
_HOURS_S = 3600.0
_SPEC = """
name = "large"
[model]
path = "/models/m"
[[pool]]
name = "w"
workers = {workers}
time = "24:00:00"
"""


class MemoryLauncher:
    """Every job runs, and ends a day after its start."""

    name = "slurm"

    def __init__(self, began: float) -> None:
        self._began, self.submitted = began, 0

    def check(self, request: JobRequest) -> None:
        """Everything can run."""

    def submit(self, request: JobRequest) -> str:
        """The next number."""
        self.submitted += 1
        return f"new-{self.submitted}"

    def render(self, request: JobRequest) -> str:
        """Nothing is written."""
        return ""

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """All run, spread over the day."""
        return {job: self._status(number, job) for number, job in enumerate(ids)}

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        """Every job can run."""
        return True

    def find(self, request: JobRequest) -> list[str]:
        """Nobody else submits."""
        return []

    def cancel(self, ids: Sequence[str]) -> None:
        """Nothing is cancelled here."""

    def kill(self, ids: Sequence[str]) -> None:
        """Nothing is killed here."""

    def _status(self, number: int, job: str) -> JobStatus:
        if job.startswith("new-"):
            return JobStatus(id=job, phase=JobPhase.PENDING, state="PENDING", limit_s=86_400)
        ends_at = self._began + _HOURS_S * (2 + number % 20)
        return JobStatus(id=job, phase=JobPhase.RUNNING, state="RUNNING", ends_at=ends_at, limit_s=86_400)


def measure(workers: int) -> dict[str, Any]:
    """Seconds of looks of one controller: the first, and later ones before which every tenth record was written anew.

    In memory (/dev/shm) where that is there. `decide_s` is the part of `decide`.
    """
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=folder) as path:
        run, now = RunDirectory(Path(path) / "large"), time.time()
        _write(run, workers, now)
        deciding: list[float] = []
        with mock.patch.object(controller_module, "decide", _timed(deciding)):
            looks, cpu = _looks(run, workers, now)
    return {
        "workers": workers,
        "first_s": round(looks[0], 3),
        f"tick_s_{workers}": round(sorted(looks[1:])[len(looks) // 2], 3),
        "tick_cpu_s": round(sorted(cpu[1:])[len(cpu) // 2], 3),
        "decide_s": round(sorted(deciding)[len(deciding) // 2], 3),
    }


def _looks(run: RunDirectory, workers: int, now: float) -> tuple[list[float], list[float]]:
    controller = Controller(run, MemoryLauncher(now))
    looks, cpu = [], []
    for number in range(_LOOKS + 1):
        for index in range(number, workers, 10):
            _write_worker(run, index, now + number)
        began, cpu_began = time.perf_counter(), time.process_time()
        if not controller.tick():
            raise RuntimeError("the controller sees no deployment")
        looks.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    return looks, cpu


def _timed(deciding: list[float]) -> Any:
    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = decide(*arguments)
        deciding.append(time.perf_counter() - began)
        return found

    return timed


def _write(run: RunDirectory, workers: int, now: float) -> None:
    run.create()
    run.write_spec(parse_spec(_SPEC.format(workers=workers)))
    jobs = [JobRecord(id="router", role=ROUTER, submitted_at=now)]
    jobs += [JobRecord(id=str(number), role=f"w-{number}", slot=number, submitted_at=now) for number in range(workers)]
    record = DeploymentRecord(launcher="slurm", claimed_by="1 on n1", claimed_at=now, is_complete=True)
    run.claims.take(record)
    run.claims.update(msgspec.structs.replace(record, jobs=tuple(jobs)))
    run.take_serials([f"w-{workers - 1}"])
    for number in range(workers):
        _write_worker(run, number, now)


def _write_worker(run: RunDirectory, number: int, at: float) -> None:
    run.write_worker(
        WorkerRecord(
            id=f"w-{number}",
            pool="w",
            engine="native",
            model="m",
            state=WorkerState.READY,
            host=f"n{number}",
            job=str(number),
            epoch=0,
            pid=1,
            updated_at=at,
            url=f"https://10.0.{number // 250}.{number % 250}:8000",
            key="k" * 43,
            capacity=64,
        )
    )
