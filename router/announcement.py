"""`router.json`: written as soon as that is possible, taken back at the end."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

from ..core.errors import RunDirectoryError, SlurminferError
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.slurm_env import job_id, restart_count
from ..core.threads import in_thread
from .private import PrivateIdentity

_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class Announcement:
    """Where this router is, for clients and for our own commands, which have a port of their own.

    Args:
        run: of the deployment.
        record: to be written.
        open_private: called with the identity of the private port, as PEM, as soon as commands can read it too.
    """

    def __init__(self, run: RunDirectory, record: RouterRecord, open_private: Callable[[str], None]) -> None:
        self._run, self._record, self._open_private = run, record, open_private
        self._identity = PrivateIdentity(run)
        self._is_written = False

    async def publish(self) -> None:
        """Open the private port and write the record. Requests are answered meanwhile: a disk may be full for long."""
        told = False
        while True:
            try:
                self._open_private(await in_thread(self._identity.make))
                self._is_written = True  # even if only this process does not know it
                await in_thread(lambda: self._run.write_router(self._record))
            except SlurminferError as error:
                if not told:
                    _log.warning("clients cannot find the router until this is written: %s", error)
                told = True
            else:
                _log.info("listening on %s", self._record.url)
                return
            await asyncio.sleep(_AGAIN_S)

    def retract(self) -> None:
        """Take record and identity back, unless another router has put its own there."""
        self._identity.retract()
        try:
            if self._is_written and self._run.read_router() == self._record:
                self._run.router_path.unlink(missing_ok=True)
        except (RunDirectoryError, OSError) as error:
            _log.warning("the router's record may stay behind: %s", error)


def router_record(
    *, url: str | None, private_url: str | None = None, fingerprint: str = "", reason: str = ""
) -> RouterRecord:
    """The record of this process."""
    return RouterRecord(
        url=url,
        fingerprint=fingerprint,
        private_url=private_url,
        host=socket.gethostname(),
        job=job_id() or str(os.getpid()),
        pid=os.getpid(),
        epoch=restart_count(),
        started_at=time.time(),
        reason=reason,
    )
