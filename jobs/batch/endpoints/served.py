"""Workers of a batch's own: a deployment that it serves, goes on with when it is started again, and stops at the end.

Which deployments a batch has started stands in its ledger's folder, one file for each process that has tried. It is
written before anything is submitted, and says who would claim the deployment's name. So whatever is killed when, the
next driver, or `slurminfer batch cancel`, knows whether a deployment that lives is the batch's: its claim says the
same.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ....core import files
from ....core.errors import BatchError, RunActiveError
from ....core.job import Launcher
from ....core.records import DeploymentRecord
from ....core.rundir import RunDirectory
from ....core.spec.deployment import DeploymentSpec
from ...serve import claim_holder
from ...serve.deployment import start, stop
from ...serve.status.views import print_submitted, wait_until_ready
from ...terminal.console import stderr

_VERSION = 1
_PATIENCE_S, _LOOK_EVERY_S = 300.0, 1.0


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """`deployments/*.json`: a deployment that a process of the batch was about to start."""

    version: int = _VERSION
    run: str  # path of its run directory
    claimed_by: str  # as its own record says it

    @property
    def directory(self) -> RunDirectory:
        """Its run directory."""
        return RunDirectory(Path(self.run))


class OwnDeployments:
    """What a batch has started, in a folder of its ledger. All methods raise RunDirectoryError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, run: RunDirectory) -> None:
        """Keep that this process is about to start a deployment."""
        files.make_directory(self.folder)
        started = Start(run=str(run.path), claimed_by=claim_holder.here())
        name = hashlib.sha256(f"{started.run} {started.claimed_by}".encode()).hexdigest()[:16]
        files.write_atomic(self.folder / f"{name}.json", files.encode_json(started))

    def starts(self) -> list[Start]:
        """All that were noted."""
        found = []
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            text = files.read_private(path)
            if text is not None:
                found.append(files.parse_versioned(path, text, Start, _VERSION, what="start of a deployment"))
        return found

    def record(self, run: RunDirectory) -> DeploymentRecord | None:
        """The deployment's record, if the batch has started it and it was not stopped; None otherwise."""
        record = run.read_deployment()
        if record is None:
            return None
        own = any(started.run == str(run.path) and started.claimed_by == record.claimed_by for started in self.starts())
        return record if own else None

    def living(self) -> list[RunDirectory]:
        """The deployments that the batch has started and that were not stopped."""
        runs = {started.run: started.directory for started in self.starts()}.values()
        return [run for run in runs if self.record(run) is not None]

    def stop(self) -> list[str]:
        """Stop what the batch has started and is there still, and forget it; the names of what was stopped."""
        stopped = [run.path.name for run in self.living() if stop(run) is not None]
        shutil.rmtree(self.folder, ignore_errors=True)  # what is left names claims that nobody makes again
        return stopped


@contextmanager
def served(
    spec: DeploymentSpec, launcher: Launcher, own: OwnDeployments, stays: Callable[[], bool]
) -> Iterator[RunDirectory]:
    """The spec as a deployment that is ready; the one that the batch has started before, where that lives.

    At the end it is stopped whatever happens, unless `stays` says that somebody goes on with it. Raises RunActiveError
    where a deployment of somebody else has the name, and what starting one raises.
    """
    try:
        run = _begun(spec, launcher, own)
        wait_until_ready(run)
        yield run
    finally:
        if not stays():
            own.stop()


def _begun(spec: DeploymentSpec, launcher: Launcher, own: OwnDeployments) -> RunDirectory:
    """The batch's deployment, submitted as a whole. Of several drivers that come at once, one submits it."""
    run = RunDirectory.named(spec.name)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        record = own.record(run)
        if record is not None and claim_holder.is_living(record):
            if record.is_complete:
                stderr.print(f"going on with deployment '{spec.name}', which this batch has started before")
                return run
            _require_time(deadline, spec.name)
            if not claim_holder.is_submitting(record):
                stop(run)  # whoever submitted it has died before all of its jobs were there
            time.sleep(_LOOK_EVERY_S)
            continue
        own.note(run)
        try:
            started = start(spec, launcher)
        except RunActiveError:
            if own.record(run) is None:
                raise
            continue
        print_submitted(started)
        return started


def _require_time(deadline: float, name: str) -> None:
    if time.monotonic() > deadline:
        raise BatchError(
            f"deployment '{name}' is being submitted by another driver of this batch for {_PATIENCE_S:g} s"
        )
