"""Signs of life: which drivers of a ledger live. No clock is compared with that of another machine."""

import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from ....core.processes.process_id import boot, is_running, pid_namespace, process_id
from ....core.slurm_env import job_id, restart_count

SILENT_S = 60.0  # without a sign of life, until a driver on another machine counts as dead
_RENEW_S = 5.0


class Sign(msgspec.Struct, kw_only=True):
    """`drivers/ID.json`, owned by that driver. Times are Unix seconds, for people to read."""

    id: str
    host: str
    process: str  # as core/processes/process_id.py names it
    boot: str  # of the machine
    pid_namespace: int = 0
    job: str | None = None
    restarts: int = 0  # of the job
    started_at: float
    seen_at: float
    beat: int = 0  # counts the signs
    opening: bool = False  # it works on nothing yet
    ended: bool = False
    rows: int = 0  # settled by it
    completion_tokens: int = 0


def sign_here() -> Sign:
    """That of a driver which begins in this process."""
    now = time.time()
    return Sign(
        id=secrets.token_hex(4),
        host=platform.node(),
        process=process_id(os.getpid()),
        boot=boot(),
        pid_namespace=pid_namespace(),
        job=job_id(),
        restarts=restart_count(),
        started_at=now,
        seen_at=now,
    )


class Signs:
    """The signs of a ledger, as one driver gives and sees them.

    Args:
        folder: `drivers/`.
        mine: this driver's; None for somebody who only looks.
        clock: seconds, monotonic.
    """

    def __init__(self, folder: Path, mine: Sign | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self.mine, self._clock = folder, mine, clock
        self._seen: dict[str, tuple[int, float]] = {}  # by id, the last beat and when it was new
        self._ended: set[str] = set()  # names of files; nothing changes in these any more
        self._renewed_at: float | None = None
        self._lock = threading.RLock()

    def begin(self, *, opening: bool = False) -> None:
        """Tell others that this driver lives, from now on, and whether it is still opening the ledger.

        Raises BatchError.
        """
        with self._lock:
            if self.mine is not None and (self._renewed_at is None or self.mine.opening != opening):
                self.mine.opening = opening
                self._give()

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Have this driver's sign renewed by a thread, while its own ones are busy."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(_RENEW_S / 2):
                with suppress(BatchError):  # who writes the ledger will hear of it
                    self.give()

        thread = threading.Thread(target=renew, name="batch-sign", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def give(self) -> None:
        """Renew this driver's sign, if it has begun and it is due. Raises BatchError."""
        with self._lock:
            if self._renewed_at is not None and self._clock() - self._renewed_at >= _RENEW_S:
                self._give()

    def end(self) -> None:
        """Tell that this driver has ended, if it has begun. Where the disk is full, by taking its sign away."""
        with self._lock:
            if self._renewed_at is None or self.mine is None:
                return
            self.mine.ended = True
            try:
                self._give()
            except BatchError:
                with suppress(OSError):
                    (self._folder / f"{self.mine.id}.json").unlink(missing_ok=True)

    def all(self) -> list[Sign]:
        """Those of all drivers that can be read, the latest first."""
        return self._read_all(sorted(self._folder.glob("*.json")))

    def others(self) -> list[Sign]:
        """Other drivers that may live."""
        with self._lock:
            signs = self._read_all([path for path in self._folder.glob("*.json") if path.name not in self._ended])
            self._ended.update(f"{sign.id}.json" for sign in signs if sign.ended)
            return [sign for sign in signs if not self.is_mine(sign.id) and not self.is_dead(sign)]

    def by_id(self, id: str) -> Sign | None:
        """The sign of one driver; None where it cannot be read."""
        return self._read(self._folder / f"{id}.json")

    def is_dead_by_id(self, id: str) -> bool:
        """Whether the driver of this id has ended or died. One that left no sign has."""
        if self.is_mine(id):
            return False
        with self._lock:
            sign = self.by_id(id)
            return sign is None or self.is_dead(sign)

    def is_dead(self, sign: Sign) -> bool:
        """Whether a driver has ended or died: at once where that can be known, else by its silence."""
        if sign.ended or self._is_before_mine(sign):
            return True
        if (sign.boot, sign.host, sign.pid_namespace) == (boot(), platform.node(), pid_namespace()):
            with suppress(ValueError):
                return not is_running(sign.process)
        beat, since = self._seen.get(sign.id, (-1, 0.0))
        if beat != sign.beat:
            self._seen[sign.id] = (sign.beat, self._clock())
            return False
        return self._clock() - since >= SILENT_S

    def _give(self) -> None:
        if self.mine is None:
            return
        self._renewed_at = self._clock()
        self.mine.beat += 1
        self.mine.seen_at = time.time()
        try:
            files.write_atomic(self._folder / f"{self.mine.id}.json", files.encode_json(self.mine), mode=None)
        except RunDirectoryError as error:
            advice = "nothing is lost: mend that and start the same command again"
            raise BatchError(f"{error}; {advice}") from error

    def _read_all(self, paths: Iterable[Path]) -> list[Sign]:
        found = [self._read(path) for path in paths]
        return sorted((sign for sign in found if sign is not None), key=lambda sign: sign.started_at, reverse=True)

    def is_mine(self, id: str) -> bool:
        """Whether it is the id of this driver."""
        return self.mine is not None and self.mine.id == id

    def _is_before_mine(self, sign: Sign) -> bool:
        """Whether it is that of an earlier run of this driver's job."""
        mine = self.mine
        return mine is not None and mine.job is not None and sign.job == mine.job and sign.restarts < mine.restarts

    def _read(self, path: Path) -> Sign | None:
        try:
            text = files.read_text(path)
            return None if text is None else msgspec.json.decode(text, type=Sign)
        except (RunDirectoryError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
