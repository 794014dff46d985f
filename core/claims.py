"""Who holds a deployment's name: one `serve` at a time, until `stop`.

Claiming is `link(2)` of `deployment.json`, which exactly one process can do. A claim whose holder has died is replaced;
who may replace it is decided by a second link, of a file named after the dead claim. `stop` leaves a file named after
the claim that it ends, so that a `serve` which is still submitting jobs under this claim finds it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from . import files
from .errors import RunDirectoryError, RunStoppedError
from .records import DeploymentRecord, read_record, write_record

_TAKEN, _STOPPED = ".taken-", ".stopped-"


class Claims:
    """The claim of one run directory.

    Args:
        path: of `deployment.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, record: DeploymentRecord) -> bool:
        """Claim a name that nobody holds; False if somebody does."""
        if not files.claim(self.path, files.encode_json(record)):
            return False
        self._forget_stops()
        return True

    def take_over(
        self, dead: DeploymentRecord, record: DeploymentRecord, is_living: Callable[[DeploymentRecord], bool]
    ) -> bool:
        """Replace a claim whose holder has died; False if another process is doing so, or has done so.

        Args:
            dead: the claim as it was read when its holder was found to be dead.
            record: the new claim.
            is_living: whether the holder of a claim lives.
        """
        permit = self._named(_TAKEN, dead)
        while not files.claim(permit, files.encode_json(record)):
            other = read_record(permit, DeploymentRecord)
            if other is None or is_living(other):
                return False
            permit = self._named(_TAKEN, other)  # it has died before it replaced the claim
        try:
            return self._replace(dead, record)
        finally:
            permit.unlink(missing_ok=True)

    def update(self, record: DeploymentRecord) -> None:
        """Write further jobs into the claim. Raises RunStoppedError if it was stopped or is another process's."""
        self.require(record)
        write_record(self.path, record)
        self._require_not_stopped(record)  # again, after writing; the caller then removes the record

    def require(self, record: DeploymentRecord) -> None:
        """Raise RunStoppedError if the claim is no longer that of `record`."""
        self._require_not_stopped(record)
        if not self.is_held(record):
            raise self._stopped()

    def is_held(self, record: DeploymentRecord) -> bool:
        """Whether the claim is that of `record`, whatever jobs it has by now."""
        current = read_record(self.path, DeploymentRecord)
        return current is not None and _token(current) == _token(record)

    def was_stopped(self, record: DeploymentRecord) -> bool:
        """Whether the deployment of this claim is being stopped, or was, and no other one has the name since."""
        return self._named(_STOPPED, record).exists()

    def announce_stop(self, record: DeploymentRecord) -> None:
        """Tell the `serve` that holds this claim, if it is still submitting, that the deployment is being stopped."""
        try:
            files.write_atomic(self._named(_STOPPED, record), "")
        except RunDirectoryError:
            return  # a full disk must not prevent `stop`, which removes the claim itself next

    def _replace(self, dead: DeploymentRecord, record: DeploymentRecord) -> bool:
        current = read_record(self.path, DeploymentRecord)
        if current is None:
            return self.take(record)
        if _token(current) != _token(dead):
            return False
        write_record(self.path, record)
        self._forget_stops()
        return True

    def _require_not_stopped(self, record: DeploymentRecord) -> None:
        if self.was_stopped(record):
            raise self._stopped()

    def _stopped(self) -> RunStoppedError:
        name = self.path.parent.name
        return RunStoppedError(f"deployment '{name}' was stopped while its jobs were being submitted")

    def _forget_stops(self) -> None:
        for path in self.path.parent.glob(f"{_STOPPED}*"):
            path.unlink(missing_ok=True)

    def _named(self, prefix: str, record: DeploymentRecord) -> Path:
        return self.path.with_name(prefix + _token(record))


def _token(record: DeploymentRecord) -> str:
    """What tells one claim from another, whatever jobs it has."""
    return hashlib.sha256(f"{record.claimed_by} {record.claimed_at!r}".encode()).hexdigest()[:16]
