"""`router.json`: written as soon as that is possible, taken back at the end."""

import asyncio
import logging
import os
import socket
import time
from contextlib import ExitStack

from aiohttp import web

from ..core.errors import RunDirectoryError, SlurminferError
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.slurm_env import job_id, restart_count
from .fleet.records import in_thread
from .private import PrivateListener

_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class Announcement:
    """Where this router is, for clients and for our own commands, which get a port of their own."""

    def __init__(self, run: RunDirectory, runner: web.AppRunner, url: str) -> None:
        self._run, self._runner, self._url = run, runner, url
        self._private = ExitStack()
        self._private_url: str | None = None
        self._record: RouterRecord | None = None

    async def publish(self) -> None:
        """Open the private port and write the record. Requests are answered meanwhile: a disk may be full for long."""
        told = False
        while True:
            try:
                await self._publish()
            except SlurminferError as error:
                if not told:
                    _log.warning("clients cannot find the router until this is written: %s", error)
                told = True
            else:
                _log.info("listening on %s", self._url)
                return
            await asyncio.sleep(_AGAIN_S)

    def retract(self) -> None:
        """Close the private port and take the record back, unless another router has put its own there."""
        self._private.close()
        try:
            if self._record is not None and self._run.read_router() == self._record:
                self._run.router_path.unlink(missing_ok=True)
        except (RunDirectoryError, OSError) as error:
            _log.warning("the router's record may stay behind: %s", error)

    async def _publish(self) -> None:
        if self._private_url is None:
            self._private_url = self._private.enter_context(PrivateListener(self._run, self._runner)).url
        record = self._record = router_record(url=self._url, private_url=self._private_url)
        await in_thread(lambda: self._run.write_router(record))


def router_record(*, url: str | None, private_url: str | None = None, reason: str = "") -> RouterRecord:
    """The record of this process."""
    return RouterRecord(
        url=url,
        private_url=private_url,
        host=socket.gethostname(),
        job=job_id() or str(os.getpid()),
        pid=os.getpid(),
        epoch=restart_count(),
        started_at=time.time(),
        reason=reason,
    )
