"""What a driver's job runs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....core import files
from ....core.job import RequeueableEntry
from ....core.processes.process import accept_any_text
from ....core.processes.python import module_argv
from ....slurm.ending import is_requeued, is_taken_away
from .ending import DriverEnding
from .folder import JobsFolder

KEY = "OPENAI_API_KEY"  # of the environment: the key of --endpoint


@dataclass(frozen=True)
class DriverEntry(RequeueableEntry):
    """One driver of a batch that was submitted. submitit pickles it; what is to be done lies in the ledger's folder."""

    output: Path
    umask: int = field(default_factory=files.current_umask)

    def __call__(self) -> None:
        """Work until all rows are settled, or until told to end. Raises BatchError where the batch cannot go on."""
        from ..commands.work import work

        accept_any_text()
        os.umask(self.umask)  # a job of ours has one that closes its files; the output is the user's
        ending = DriverEnding(is_taken_away, is_requeued)
        with ending.listening():
            work(
                JobsFolder(self.output).read_batch(),
                os.environ.get(KEY),
                returns=lambda: ending.is_told and ending.returns,
            )

    def argv(self) -> Sequence[str]:
        """The driver as a command line."""
        return module_argv("slurminfer.jobs.batch.submit", str(self.output))
