"""What a doctor's job does on each of its nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import SlurmError
from ...core.processes.python import module_argv
from ...core.slurm_env import partition, task_rank
from ...nodes.doctor import task

_SCRIPT = "#!/bin/sh\n"


@dataclass(frozen=True, kw_only=True)
class DoctorEntry:
    """Look at the node and leave a report in the folder."""

    folder: Path
    tasks: int
    account: str | None = None

    def __call__(self) -> None:
        """Look at the node. Raises RunDirectoryError."""
        task.run(self.folder, task_rank(), self.tasks, self._submission)

    def argv(self) -> Sequence[str]:
        """A command that looks at the machine it is typed on."""
        return module_argv("slurminfer", "doctor", "--local")

    def _submission(self) -> task.Submission:
        """Whether a job of this partition could be submitted from here."""
        from ...slurm.forecast import forecast

        options = [
            f"--{name}={value}" for name, value in (("partition", partition()), ("account", self.account)) if value
        ]
        try:
            found = forecast(_SCRIPT, "--time=1", *options)
        except SlurmError as error:
            return False, str(error)
        return found.starts_at is not None, found.reason
