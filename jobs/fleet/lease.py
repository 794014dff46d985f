"""Which controller acts for a deployment: the one that holds a file of the run directory, which it renews all the time.

Another one takes over when the file has not changed for a while as seen by its own monotonic clock: clocks of two nodes
need not agree. A holder whose process has ended on this very machine is replaced at once. Who takes over is decided by
link(2), of a file named after the content that has become stale.
A controller that was stopped for longer than that finds another's name in the file when it looks before it acts.
"""

import hashlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError
from ...core.keys import new_key
from ...core.processes import process_id
from ...core.records import CONTROLLER_SILENCE_S
from ...core.rundir import RunDirectory

_TAKEN = ".controller-"


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`controller.json`: who holds the lease. `beat` rises with every renewal."""

    holder: str  # drawn by the controller
    host: str
    process: str  # of core/processes/process_id.py
    namespace: int  # in which that process has its number
    beat: int = 0


class Lease:
    """The lease of one run directory, for one controller.

    Args:
        run: of the deployment.
        clock: monotonic seconds.
        stale_s: without renewal for so long, another holder counts as dead.
        path: of the lease's file, if it is not the controllers' one.
    """

    def __init__(
        self,
        run: RunDirectory,
        clock: Callable[[], float] = time.monotonic,
        stale_s: float = CONTROLLER_SILENCE_S,
        path: Path | None = None,
    ) -> None:
        self._path, self._clock, self._stale_s = path or run.lease_path, clock, stale_s
        self._own = LeaseRecord(
            holder=new_key(),
            host=socket.gethostname(),
            process=process_id.process_id(os.getpid()),
            namespace=process_id.pid_namespace(),
        )
        self._seen: LeaseRecord | None = None
        self._seen_at = clock()

    def renew(self) -> bool:
        """Take or keep the lease; False while another controller has it. Raises RunDirectoryError."""
        found = self._read()
        if found is None:
            return files.claim(self._path, files.encode_json(self._own))
        if found.holder == self._own.holder:
            self._own = msgspec.structs.replace(self._own, beat=self._own.beat + 1)
            files.write_atomic(self._path, files.encode_json(self._own))
            return True
        if found != self._seen:
            self._seen, self._seen_at = found, self._clock()
        if self._clock() - self._seen_at < self._stale_s and not self._has_died(found):
            return False
        return self._take_over(found)

    def is_held(self) -> bool:
        """Whether it is still this controller's. Raises RunDirectoryError."""
        found = self._read()
        return found is not None and found.holder == self._own.holder

    def keep(self) -> bool:
        """As `is_held`, and renew it: to be called before each action, of which one may take a minute.

        Raises RunDirectoryError.
        """
        return self.is_held() and self.renew()

    def release(self) -> None:
        """Give it back, so that the next one need not wait. Raises RunDirectoryError."""
        if self.is_held():
            files.remove(self._path)

    def _has_died(self, found: LeaseRecord) -> bool:
        """Whether its process was one of this machine, and has ended; False where that cannot be told."""
        if (found.host, found.namespace) != (self._own.host, self._own.namespace):
            return False
        try:
            return process_id.is_of_this_boot(found.process) and not process_id.is_running(found.process)
        except ValueError:
            return False

    def _take_over(self, stale: LeaseRecord) -> bool:
        permit = self._permit_for(stale)
        if not files.claim(permit, files.encode_json(self._own)):
            if self._clock() - self._seen_at > 2 * self._stale_s:  # whoever had the permit has died with it
                files.remove(permit)
            return False
        try:
            if self._read() != stale:
                return False
            files.write_atomic(self._path, files.encode_json(self._own))
            return True
        finally:
            files.remove(permit)

    def _permit_for(self, stale: LeaseRecord) -> Path:
        """The file that exactly one controller can make."""
        return self._path.with_name(_TAKEN + hashlib.sha256(files.encode_json(stale).encode()).hexdigest()[:16])

    def _read(self) -> LeaseRecord | None:
        return _lease(self._path)


def _lease(path: Path) -> LeaseRecord | None:
    text = files.read_private(path)
    if text is None:
        return None
    try:
        return msgspec.convert(files.parse_json(path, text), LeaseRecord)
    except (msgspec.ValidationError, RunDirectoryError):  # damaged: nobody holds it, and somebody takes over in time
        return LeaseRecord(holder="", host="", process=hashlib.sha256(text.encode()).hexdigest(), namespace=0)
