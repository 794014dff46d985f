"""The agent, which runs one worker on its node. docs/develop/life-of-a-worker.md describes what happens when.

On the worker's first node it is the head (head.py), which owns the worker's record; on further nodes it is a follower
(follower.py), which only keeps the engine's process there running, and ends when the head has ended.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import SlurminferError
from ...core.job import RequeueableEntry
from ...core.private_folder import private_folder
from ...core.process import accept_any_text
from ...core.python import module_argv
from ...core.rundir import RunDirectory
from . import threads
from .follower import Follower
from .head import Head
from .task import Task


@dataclass(frozen=True)
class WorkerEntry(RequeueableEntry):
    """What a worker's job runs. submitit pickles it."""

    run_path: Path
    worker_id: str
    slot: int = 0  # see DeploymentSpec.slots; only local workers ask for it

    def __call__(self) -> None:
        """Live until the engine ends or a signal comes. Raises EngineError where the engine fails."""
        Agent(RunDirectory(self.run_path), self.worker_id, self.slot).run()

    def argv(self) -> Sequence[str]:
        """The agent as a command line, for a machine without Slurm."""
        words = [str(self.run_path), self.worker_id, f"--slot={self.slot}"]
        return module_argv("slurminfer.nodes.agent", *words)


class Agent:
    """One task of a worker's job."""

    def __init__(self, run: RunDirectory, worker_id: str, slot: int = 0) -> None:
        self._task = Task(run, worker_id, slot)

    def run(self) -> None:
        """Run the worker to its end. Raises EngineError where the engine fails; a walltime limit requeues the job."""
        accept_any_text()
        task = self._task
        task.signals.listen()
        if task.place.local:
            threads.settle(task.spec, task.slot)
        role = Head if task.place.node_rank == 0 else Follower
        try:
            with private_folder() as private:
                role(task, private).run()
        finally:
            task.signals.restore()
        task.signals.hand_back()


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
