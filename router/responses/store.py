"""Kept responses on the shared filesystem, a file each, in a folder for each tenant.

Each has one turn of its conversation, and the id of the response before. The turns before stay for as long as one that
needs them, also when clients no longer see them. Two programs may use the same folders: files never change, and what
is about to be removed is hidden first, so that whoever adds a turn sees that. All methods block on the filesystem;
they raise RunDirectoryError where it fails.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Raw

from ...core import files
from ...core.errors import DamagedFileError, RunDirectoryError
from ...core.spec.router import RouterSpec
from .folder import folders_in, hide, is_there, listed, path_of, strangers, write
from .ids import ResponseId, is_tenants, parsed, required
from .limits import MOST_RECORD_BYTES, Limits
from .lineage import Amount, KeptFile, fair_share, needless, surplus
from .recent import Recent
from .record import VERSION, Record

_WRITES_PER_LOOK, _BYTES_PER_LOOK = 64, 64 * 2**20  # of a tenant, before its folder is looked at again
_LEFTOVER_S = 600.0  # after which whoever wrote a file beside is surely gone
_MOST_SKEW_S = 600.0  # by which the clocks of two nodes may differ
_SURELY_S = 120.0  # a response that is too old in less may be removed before the next turn is seen
Removed = Counter[str]  # how many, by why: expired, limit, deleted


class ResponseStore:
    """The kept responses of one deployment.

    Args:
        path: of their folder.
        limits: how much is kept.
        clock: Unix seconds.
    """

    def __init__(self, path: Path, limits: Limits, clock: Callable[[], float] = time.time) -> None:
        self._path, self._limits, self._clock = path, limits, clock
        self._written: dict[str, tuple[int, int]] = {}  # writes and bytes by tenant's folder, since it was looked at
        self._sizes: dict[str, dict[str, int]] = {}  # bytes by folder and id, as they were seen: files never change
        # Conversations that are being looked at, by folder, and whether more of them was hidden meanwhile.
        self._hidden: dict[tuple[str, str], bool] = {}
        self._lock = threading.Lock()
        self._recent = Recent()
        self.held = Amount(0, 0)  # at the last sweep

    def keep(self, record: Record, before: Callable[[], Raw]) -> bool:
        """Keep a response. True: it is time to `tidy`. Raises RunDirectoryError, also for one that is too large.

        Args:
            record: of the response.
            before: the turns before, for the case that the response before may go.
        """
        id = required(record.id)
        path = path_of(self._folder(id), id)
        size = _write(path, record)
        if record.previous and not self._stays(record.previous):  # looked at after the turn can be seen; see `_remove`
            record = msgspec.structs.replace(record, previous="", before=before())
            size = _write(path, record)
        self._recent.put(record)
        return self._is_time_to_look(id.mark, size)

    def get(self, tenant: str, id: str) -> Record | None:
        """A tenant's response; None where it is not kept, or no longer. Raises DamagedFileError too."""
        found = parsed(id)
        if found is None or not is_tenants(found, tenant) or self._is_old(found):
            return None
        return self._read(tenant, found, is_removed=False)

    def before(self, tenant: str, id: str) -> Record | None:
        """The response that a kept one goes on with, for its turn alone: it may have been deleted, or be too old."""
        found = parsed(id)
        if found is None or not is_tenants(found, tenant):
            return None
        record = self._recent.get(tenant, id) or self._read(tenant, found, is_removed=False)
        return self._read(tenant, found, is_removed=True) if record is None else record

    def delete(self, tenant: str, id: str) -> bool:
        """Remove a tenant's response; whether it was there. Its turn stays where others go on with it."""
        try:
            if self.get(tenant, id) is None:
                return False
        except DamagedFileError:  # it tells no tenant, but its id and its folder do
            pass
        found = required(id)
        was_there = hide(self._folder(found), found)
        self._remove_hidden(self._folder(found), found.conversation)
        return was_there

    def tidy(self, id: str) -> Removed:
        """Remove the oldest responses of the tenant whose response that is, if there are too many of them."""
        return self._tidy(self._folder(required(id)), self._of_tenant())

    def sweep(self) -> tuple[Removed, list[RunDirectoryError]]:
        """Remove what is too old, what is too much, and what writers that are gone have left.

        Returns what was removed, and why some could not be: that holds up nothing else.
        """
        removed, failed, kept = Removed(), list[RunDirectoryError](), dict[Path, list[KeptFile]]()

        def each(folders: Iterable[Path], do: Callable[[Path], Removed | None]) -> None:
            for folder in folders:
                try:
                    removed.update(do(folder) or {})
                except RunDirectoryError as error:
                    failed.append(error)

        def clean(folder: Path) -> Removed:
            self._remove_strangers(folder)
            gone, kept[folder] = self._remove(folder)
            with suppress(OSError):  # something is in it
                os.rmdir(folder)
            return gone

        each(folders_in(self._path), clean)
        most = self._share(kept.values())
        each([folder for folder, found in kept.items() if not Amount.of(found).fits(most)],
             lambda folder: self._tidy(folder, most))  # fmt: skip
        self.held = Amount.of(file for found in kept.values() for file in found)
        return removed, failed

    def clear(self) -> None:
        """Remove all of them."""
        files.remove(self._path)

    def _of_tenant(self) -> Amount:
        return Amount(self._limits.of_tenant, self._limits.bytes_of_tenant)

    def _share(self, kept: Iterable[list[KeptFile]]) -> Amount:
        """How much each tenant may have, so that all have what there is room for: who has most loses first."""
        amounts, of_tenant = [Amount.of(found) for found in kept], self._of_tenant()
        return Amount(
            min(of_tenant.responses, fair_share([amount.responses for amount in amounts], self._limits.in_all)),
            min(of_tenant.bytes, fair_share([amount.bytes for amount in amounts], self._limits.bytes_in_all)),
        )

    def _folder(self, id: ResponseId) -> Path:
        return self._path / id.mark

    def _read(self, tenant: str, id: ResponseId, *, is_removed: bool) -> Record | None:
        path = path_of(self._folder(id), id, is_removed=is_removed)
        text = files.read_private(path, most_bytes=MOST_RECORD_BYTES)
        if text is None:
            return None
        record = files.parse_versioned(path, text, Record, VERSION, what="kept response")
        if record.tenant != tenant or record.id != id.text:
            return None
        self._recent.put(record)
        return record

    def _is_old(self, id: ResponseId, sooner_by: float = 0.0) -> bool:
        """Whether a response is too old. One of the far future was made by a clock that was wrong, and would stay."""
        age = self._clock() - id.made_at
        return age >= self._limits.seconds - sooner_by or age <= -max(self._limits.seconds, _MOST_SKEW_S)

    def _stays(self, previous: str) -> bool:
        """Whether a response stays until a sweep can see the turn that goes on with it."""
        id = required(previous)
        is_ending = self._is_old(id, sooner_by=min(_SURELY_S, self._limits.seconds / 2))
        return not is_ending and is_there(path_of(self._folder(id), id))

    def _is_time_to_look(self, folder: str, size: int) -> bool:
        with self._lock:
            writes, written = self._written.get(folder, (_WRITES_PER_LOOK, 0))  # another relay may have filled it
            is_time = writes + 1 >= _WRITES_PER_LOOK or written + size >= _BYTES_PER_LOOK
            self._written[folder] = (0, 0) if is_time else (writes + 1, written + size)
            return is_time

    def _listed(self, folder: Path, conversation: str | None) -> list[KeptFile]:
        found = listed(folder, self._sizes.get(folder.name, {}), conversation)
        if conversation is not None:
            return found
        self._sizes[folder.name] = {file.id.text: file.size for file in found}
        return found

    def _tidy(self, folder: Path, most: Amount) -> Removed:
        """Remove from a folder what is over, and what is more than `most`."""
        removed, left = self._remove(folder)
        too_many = surplus(left, most)
        if too_many:
            removed["limit"] += sum(hide(folder, file.id) for file in too_many if not file.is_removed)
            self._remove(folder)
        return removed

    def _remove(self, folder: Path, conversation: str | None = None) -> tuple[Removed, list[KeptFile]]:
        """Remove the turns that are over and that nobody needs, of one conversation or of all; what is left of them.

        Those that are not too old were hidden before the folder is listed here: whoever adds a turn to one of them
        either has written it before, and so it is listed, or sees then that its last turn is hidden.
        """
        removed, failed, found = Removed(), None, self._listed(folder, conversation)
        gone = needless(found, lambda file: file.is_removed or self._is_old(file.id))
        is_gone = {file.id.text for file in gone}
        for file in gone:
            try:
                files.remove(path_of(folder, file.id, is_removed=file.is_removed))
            except RunDirectoryError as error:
                failed = error
            removed["expired"] += not file.is_removed
        if failed is not None:
            raise failed
        return removed, [file for file in found if file.id.text not in is_gone]

    def _remove_hidden(self, folder: Path, conversation: str) -> None:
        """Remove what was hidden of a conversation, at once for all that are hidden meanwhile: they may be very many.

        What is hidden after the second look is removed by the next one, or by a sweep.
        """
        which = folder.name, conversation
        with self._lock:
            if which in self._hidden:
                self._hidden[which] = True
                return
            self._hidden[which] = False
        try:
            self._remove(folder, conversation)
            if self._hidden[which]:
                self._remove(folder, conversation)
        finally:
            del self._hidden[which]

    def _remove_strangers(self, folder: Path) -> None:
        for path in strangers(folder, self._clock() - _LEFTOVER_S):
            files.remove(path)


def response_store(path: str | Path, spec: RouterSpec) -> ResponseStore | None:
    """The store of a deployment; None where no responses are kept, or there is no folder for them."""
    if not path or not spec.keep_responses:
        return None
    return ResponseStore(Path(path), Limits(seconds=spec.keep_responses))


def _write(path: Path, record: Record) -> int:
    """Write a record; its size. Raises RunDirectoryError."""
    data = msgspec.json.encode(record)
    if len(data) > MOST_RECORD_BYTES:
        raise RunDirectoryError(f"response {record.id} has more than {MOST_RECORD_BYTES} bytes")
    write(path, data)
    return len(data)
