"""What the router's job runs. (A worker's is nodes/agent/entry.py's WorkerEntry.)"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.rundir import RunDirectory


@dataclass(frozen=True)
class RouterEntry:
    """The router of one deployment. submitit pickles it; `checkpoint` makes the job requeueable."""

    run_path: Path

    def __call__(self) -> None:
        """Serve until told to stop. Raises RouterError where it cannot."""
        from ...router.main import run_router

        run_router(RunDirectory(self.run_path))

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """submitit asks this after the walltime signal: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def argv(self) -> Sequence[str]:
        """The same as a command line, for a machine without Slurm."""
        return [sys.executable, "-m", "slurminfer.router", str(self.run_path)]
