"""`router.json`: written as soon as that is possible, watched, and taken back at the end.

Two routers may run at the same time: a successor starts before its predecessor ends, and puts its own record in place
of that one's. The predecessor notices it here. Should the successor be lost, the predecessor puts its record back.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ..core import files
from ..core.background.threads import in_thread
from ..core.errors import DamagedFileError, RunDirectoryError, SlurminferError
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory
from ..core.slurm_env import recorded_job, restart_count
from .control.messages import Replaced
from .peer import answers, living_router
from .private import PrivateIdentity

_LOOK_S = 1.0
_ASK_EVERY = 10  # looks between two questions whether the successor lives
_MEND_EVERY = 10  # looks between two at the files beside the record
_MOST_MISSING = 2  # looks without any record that can be read, such as while a successor writes its own
# Failed questions in a row, of which each takes up to 3 s, before the successor counts as lost. The number doubles each
# time, in case two routers cannot see each other and both live.
_MOST_SILENT = 10
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
        self._missing = self._silent = self._looks = 0
        self._most_silent = _MOST_SILENT
        self.successor: RouterRecord | None = None  # another router that clients find now, and that has answered

    async def publish(self) -> None:
        """Open the private port and write the record. Requests are answered meanwhile: a disk may be full for long."""
        told = False
        while True:
            try:
                self._open_private(await in_thread(self._identity.make))
                self._is_written = True  # even if only this process does not know it
                await in_thread(self._write)
            except SlurminferError as error:
                if not told:
                    _log.warning("clients cannot find the router until this is written: %s", error)
                told = True
            else:
                _log.info("listening on %s", self._record.url)
                return
            await asyncio.sleep(_AGAIN_S)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Look for a successor until cancelled; `changed` is called when `successor` has become another."""
        while True:
            await asyncio.sleep(_LOOK_S)
            before = self.successor
            await self.look()
            if self.successor != before:
                changed()

    @property
    def replaced(self) -> Replaced:
        """What relays are to know of the successor."""
        found = self.successor
        return Replaced(found is not None, shares_port=found is not None and found.url == self._record.url)

    async def look(self) -> None:
        """See whether the record is still there, or that of a router that lives."""
        try:
            found = await in_thread(self._read)
        except DamagedFileError as error:
            await self._miss(str(error))
            return
        except RunDirectoryError:  # a filesystem in trouble: it stays what it was
            return
        if found == self._record:
            self.successor, self._missing, self._silent = None, 0, 0
        elif found is None or found.url is None:
            await self._miss("no router has its record there")
        else:
            self._missing = 0
            await self._ask(found)

    async def has_successor(self) -> bool:
        """Whether clients find another router now, which answers."""
        found = await living_router(self._run)
        return found is not None and found != self._record

    def retract(self) -> None:
        """Take record and identity back, unless another router has put its own there."""
        self._identity.retract()
        try:
            if self._is_written and self._run.read_router() == self._record:
                self._run.router_path.unlink(missing_ok=True)
                self._run.endpoint_path.unlink(missing_ok=True)
        except (RunDirectoryError, OSError) as error:
            _log.warning("the router's record may stay behind: %s", error)

    def _write(self) -> None:
        """What is found by programs that follow `router.json` comes first."""
        self._mend()
        self._run.write_router(self._record)

    def _read(self) -> RouterRecord | None:
        """The record that is there; where it is this router's, what belongs to it is mended now and then."""
        found = self._run.read_router()
        self._looks += 1
        if found == self._record and self._looks % _MEND_EVERY == 0:
            self._mend()
        return found

    def _mend(self) -> None:
        """Write the files beside the record where they are not there or not this router's."""
        self._identity.restore()
        write_endpoint(self._run.endpoint_path, self._record)

    async def _miss(self, why: str) -> None:
        """Nobody finds a router: write the record, unless it is the successor's to do that."""
        self._missing += 1
        if self._missing < _MOST_MISSING:
            return
        if self.successor is None or not await answers(self._run, self.successor):
            await self._return(why)

    async def _ask(self, found: RouterRecord) -> None:
        """Another router's record is there: does that one live?"""
        if found == self.successor and not self._silent and self._looks % _ASK_EVERY:
            return
        if await answers(self._run, found):
            if self.successor is None:
                _log.info("job %s has taken over at %s", found.job, found.url)
            self.successor, self._silent = found, 0
            return
        self._silent += 1
        if self._silent >= self._most_silent:
            self._most_silent *= 2
            await self._return(f"the router of job {found.job} on {found.host} does not answer")

    async def _return(self, why: str) -> None:
        """Let clients find this router again."""
        _log.warning("%s: this router takes over again", why)
        self._missing = self._silent = 0
        self.successor = None
        await self.publish()


def write_endpoint(path: Path, record: RouterRecord) -> None:
    """Write where the endpoint is, as an environment file, unless it says so. Raises RunDirectoryError."""
    files.restore(path, f"OPENAI_BASE_URL={record.url}/v1\n")


def router_record(
    *, url: str | None, private_url: str | None = None, fingerprint: str = "", listeners: str = "", reason: str = ""
) -> RouterRecord:
    """The record of this process."""
    return RouterRecord(
        url=url,
        fingerprint=fingerprint,
        private_url=private_url,
        listeners=listeners,
        host=socket.gethostname(),
        job=recorded_job(),
        pid=os.getpid(),
        epoch=restart_count(),
        started_at=time.time(),
        reason=reason,
    )
