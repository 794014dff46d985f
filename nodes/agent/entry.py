"""The agent, which runs one worker on its node. docs/develop/life-of-a-worker.md describes what happens when.

On the worker's first node it is the head (head.py), which owns the worker's record; on further nodes it is a follower
(follower.py), which only keeps the engine's process there running, and ends when the head has ended.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import SlurminferError
from ...core.job import RequeueableEntry
from ...core.private_folder import private_folder
from ...core.processes.process import accept_any_text, adopt_orphans
from ...core.processes.python import module_argv
from ...core.rundir import RunDirectory
from .hooks import Hooks

if TYPE_CHECKING:
    from .task import Task

# What runs a worker is imported where it is run: commands that only describe its job start in half the time.


@dataclass(frozen=True)
class WorkerEntry(RequeueableEntry):
    """What a worker's job runs. submitit pickles it."""

    run_path: Path
    worker_id: str
    slot: int = 0  # see DeploymentSpec.slots; only local workers ask for it
    hooks: Hooks = field(default_factory=Hooks)

    def __call__(self) -> None:
        """Live until the engine ends or a signal comes. Raises EngineError where the engine fails."""
        from .task import Task

        accept_any_text()
        task = Task(RunDirectory(self.run_path), self.worker_id, self.slot, self.hooks)
        if task.pool.workers_per_job == 1:
            run_worker(task)
        else:
            run_several(task)

    def argv(self) -> Sequence[str]:
        """The agent as a command line, for a machine without Slurm."""
        words = [str(self.run_path), self.worker_id, f"--slot={self.slot}"]
        return module_argv("slurminfer.nodes.agent", *words)


def run_worker(task: "Task") -> None:
    """Run one worker to its end. Raises EngineError where the engine fails; a walltime limit requeues the job."""
    from .follower import Follower
    from .guard import end_orphans
    from .head import Head
    from .placement import threads

    task.signals.listen()
    adopt_orphans()
    if task.place.local and not task.is_share:
        threads.settle(task.spec, task.slot)
    threads.keep_memory_near()
    role = Head if task.place.node_rank == 0 else Follower
    try:
        with private_folder() as private:
            role(task, private).run()
    finally:
        end_orphans()
        task.signals.restore()
    _end(task)


def run_several(task: "Task") -> None:
    """Run all workers of a job to their end. Raises EngineError where one fails for good; a limit requeues the job."""
    from .placement import gpus, threads
    from .placement.shares import shares
    from .shared_job import SharedJob

    if task.place.local:
        threads.settle(task.spec, task.slot)
        gpus.settle(task.spec, task.slot)
    SharedJob(task, shares(task.pool, os.environ), run_worker).run()
    _end(task)


def _end(task: "Task") -> None:
    task.obey()  # which says whether the job goes back to the queue
    if task.pool.backfill:  # nor does that of a pool that does not stand in the queue
        return
    task.signals.hand_back(task.place.ends_at, task.hooks.is_taken_away)


def main() -> int:
    """Run the agent of one worker as a process without Slurm; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.nodes.agent", description="Run one worker here.")
    parser.add_argument("run", type=Path, help="run directory of the deployment")
    parser.add_argument("worker", help="id of the worker: POOL-SERIAL")
    parser.add_argument("--slot", type=int, default=0, help="its number among the workers of the spec")
    given = parser.parse_args()
    try:
        WorkerEntry(given.run, given.worker, given.slot)()
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
