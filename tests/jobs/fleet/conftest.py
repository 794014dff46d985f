"""A deployment whose jobs the test moves, and a controller that looks at it when the test says so."""

from pathlib import Path

import msgspec
import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.records import (
    ROUTER,
    DeploymentRecord,
    JobRecord,
    PoolRecord,
    RouterRecord,
    WorkerRecord,
    WorkerState,
)
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.fleet.controller import Controller
from slurminfer.jobs.fleet.lease import Lease
from slurminfer.jobs.fleet.schedule import Schedule

from ...support.launchers import JobTable

START = 1_795_000_000.0
SPEC = """
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "cpu"
workers = 2
time = "01:00:00"
drain_seconds = 60
{pool}
[router]
time = "7-00"
"""


class Cluster:
    """The deployment `d`: two workers `cpu-0` and `cpu-1` and a router, all ready."""

    def __init__(self, path: Path, pool: str = "", *, claimed_by: str = "1 on n1", is_complete: bool = True) -> None:
        self.now = START  # monotonic
        self.clock_is_ahead = 0.0
        self.run = RunDirectory(path / "d")
        self.run.create()
        self.run.write_spec(parse_spec(SPEC.format(pool=pool)))
        self.table = JobTable()
        record = DeploymentRecord(launcher="slurm", claimed_by=claimed_by, claimed_at=START, is_complete=is_complete)
        assert self.run.claims.take(record)
        self.controller = self.new_controller()
        self.add(ROUTER, 0)
        self.start_router()
        for slot, worker in enumerate(("cpu-0", "cpu-1")):
            self.add(worker, slot)
            self.become(worker, WorkerState.READY)
        self.run.take_serials(["cpu-0", "cpu-1"])

    def new_controller(self, schedule: Schedule | None = None) -> Controller:
        lease = Lease(self.run, lambda: self.now)
        return Controller(
            self.run,
            self.table,
            schedule,
            clock=lambda: self.now + self.clock_is_ahead,
            lease=lease,
            monotonic=lambda: self.now,
        )

    def add(self, role: str, slot: int) -> None:
        """Submit a job as `serve` does."""
        job = str(len(self.table.requests) + 1)
        self.table.requests[job] = None
        self.table.set(job, JobPhase.PENDING)
        deployment = self.deployment()
        record = JobRecord(id=job, role=role, slot=slot, submitted_at=self.now)
        self.run.claims.update(msgspec.structs.replace(deployment, jobs=(*deployment.jobs, record)))

    def deployment(self) -> DeploymentRecord:
        record = self.run.read_deployment()
        assert record is not None
        return record

    def job(self, role: str) -> str:
        """The latest job of a role."""
        return [job.id for job in self.deployment().jobs if job.role == role][-1]

    def start_router(self) -> None:
        job = self.job(ROUTER)
        self.table.set(job, JobPhase.RUNNING)
        self.run.write_router(RouterRecord(url="http://n1:1", host="n1", job=job, pid=1, epoch=0, started_at=self.now))

    def become(
        self, worker: str, state: WorkerState, *, time_s: float = 3600.0, reason: str = "", epoch: int = 0
    ) -> None:
        """Let a worker's job run, and its agent say that."""
        job = self.job(worker)
        self.table.set(job, JobPhase.RUNNING)
        before = self.run.read_worker(worker)
        ends_at = before.ends_at if before is not None and before.epoch == epoch else self.now + time_s
        self.run.write_worker(
            WorkerRecord(
                id=worker, pool="cpu", engine="native", model="m", state=state, host="n1", job=job, epoch=epoch, pid=1,
                updated_at=self.now, ends_at=ends_at, capacity=8, reason=reason,
            )
        )  # fmt: skip

    def end(self, worker: str, phase: JobPhase = JobPhase.FAILED, state: str = "FAILED") -> None:
        self.table.set(self.job(worker), phase, state)

    def tick(self, seconds: float = 0.0) -> bool:
        """Let time pass, and the controller look; every agent writes its record."""
        self.now += seconds
        for record in self.run.read_workers():
            self.run.write_worker(msgspec.structs.replace(record, updated_at=self.now))
        return self.controller.tick()

    def workers(self) -> list[str]:
        return [job.role for job in self.deployment().jobs if job.role != ROUTER]

    def pool(self) -> PoolRecord:
        """What the controller has written of the pool `cpu`."""
        fleet = self.run.read_fleet()
        assert fleet is not None
        return fleet.pools["cpu"]

    def decisions(self) -> list[str]:
        fleet = self.run.read_fleet()
        return [decision.text for decision in fleet.decisions] if fleet is not None else []


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)
