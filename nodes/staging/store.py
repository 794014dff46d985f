"""The copies of models on one node: who makes them, who uses them, and when they are removed.

KEY/PATH    the copy, at the source's own path: engines look for names of models in it
KEY.json    its manifest, written when it is complete
KEY.part/   one that is being made, or whose maker was killed: the next one makes it anew
KEY.lock    locked by its maker alone, and by all its users together, as long as they live; it has the host's name

A lock file is removed with the copy. So whoever has got a lock looks whether its file still has the name; if not,
somebody has removed it in between, and the lock means nothing. Nor do locks mean anything on a filesystem that several
hosts see, which is not always known by its kind: who finds the name of another host there leaves all as it is.
"""

import os
import re
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from ...core.errors import RunDirectoryError, StagingError
from ...core.files import encode_json, parse_versioned, read_private, write_atomic
from ...core.locks import Lock, try_lock, try_share
from ...core.trust import PRIVATE_FILE
from .source import Source
from .transfer import StagedFile, copy, is_whole, looks_whole

_VERSION = 1
_KEY = re.compile(r"[0-9a-f]{16}")
_MOST_BYTES = 64 << 20  # of a manifest: some 40 bytes for each 64 MiB of the model
_LONGEST_NAME = 256  # of a host
_POLL_S = 0.5
_SPARE = 64 << 20  # left free on the disk


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`KEY.json`."""

    version: int = _VERSION
    source: str
    files: tuple[StagedFile, ...]


class Store:
    """The copies in one folder, which is this user's alone."""

    def __init__(self, folder: Path, pause: Callable[[float], None], say: Callable[[str], None]) -> None:
        """Nothing is done yet.

        Args:
            folder: on the node's own disk.
            pause: waits for so many seconds at most; called several times a second while something takes time, and
                raises to give up.
            say: takes lines for the log.
        """
        self._folder, self._pause, self._say = folder, pause, say

    def enter(self, source: Source) -> "Use":
        """The copy of `source`, made first if there is none.

        Raises StagingError, OSError, and whatever `pause` raises; then nothing of the attempt is left.
        """
        waits = False
        while True:
            use = Use(self._folder, source)
            try:
                if self._get(use, source):
                    return use
            except BaseException:
                use.close()
                raise
            use.close()
            if not waits:
                self._say(f"waits for another worker of this node, which copies {source.path} to {self._folder}")
            waits = True
            self._pause(_POLL_S)

    def sweep(self, keep: frozenset[str]) -> None:
        """Remove what killed workers have left, apart from the keys in `keep`: copies whose lock nobody holds.

        Raises OSError.
        """
        keys = {name.partition(".")[0] for name in os.listdir(self._folder)}
        for key in filter(_KEY.fullmatch, keys - keep):
            with suppress(OSError, StagingError):
                _Entry(self._folder, key).remove_unused()

    def _get(self, use: "Use", source: Source) -> bool:
        """Whether a lock and a copy that can be used are there; False: try again."""
        entry = use.entry
        if entry.lock_alone():
            try:
                use.has_copied = self._make_sure(entry, source) or use.has_copied
            except BaseException:
                entry.remove()
                raise
            return entry.share()
        if not entry.share() or (manifest := entry.manifest()) is None:
            return False
        if looks_whole(manifest.files, use.path) or is_whole(manifest.files, use.path, self._look):
            return True
        raise StagingError(f"the copy in {entry.folder} is damaged, and another worker uses it")

    def _make_sure(self, entry: "_Entry", source: Source) -> bool:
        """Make the copy, if there is none that is whole; whether it was made. Nobody has looked after it meanwhile.

        So one that is there is read to the end: its worker was killed, or the node has crashed since.
        """
        manifest = entry.manifest()
        if manifest is not None and is_whole(manifest.files, entry.folder / source.inner, self._look):
            return False
        if manifest is not None:
            self._say(f"the copy in {entry.folder} is damaged, and made anew")
        entry.clear()
        self._require_room(source.size)
        self._say(f"copies {gigabytes(source.size)} of {source.path} to {self._folder}")
        entry.part.mkdir()
        files = copy(source, entry.part / source.inner, self._look)
        entry.complete(Manifest(source=str(source.path), files=files))
        return True

    def _look(self) -> None:
        self._pause(0.0)

    def _require_room(self, size: int) -> None:
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if size + _SPARE > free:
            raise StagingError(f"{self._folder} has {gigabytes(free)} free, {gigabytes(size)} are needed")


class Use:
    """A copy that is used: it stays until `leave`, or until this process ends."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.entry = _Entry(folder, source.key)
        self.path = self.entry.folder / source.inner  # of the model
        self.has_copied = False  # this process has made it

    def leave(self) -> None:
        """Use it no more. The last one who leaves removes it."""
        with suppress(OSError, StagingError):
            self.entry.remove_unused()

    def close(self) -> None:
        """Give up the lock, and leave everything where it is."""
        self.entry.close()


class _Entry:
    """One key: its files, and an open lock."""

    def __init__(self, store: Path, key: str) -> None:
        self.folder, self.part = store / key, store / f"{key}.part"
        self._manifest, self._lock_path = store / f"{key}.json", store / f"{key}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._lock = os.open(self._lock_path, flags, PRIVATE_FILE)
        self._host = os.fsencode(socket.gethostname())

    def lock_alone(self) -> bool:
        """Whether the lock is held from now on, by nobody else. Raises StagingError where there are no locks."""
        return self._is_held(try_lock(self._lock))

    def share(self) -> bool:
        """Whether the lock is held from now on, perhaps by others too."""
        return self._is_held(try_share(self._lock))

    def _is_held(self, answer: Lock) -> bool:
        if answer is Lock.UNSUPPORTED:
            raise StagingError(f"{self.folder.parent} is on a filesystem without file locks")
        if answer is Lock.BUSY or not self._has_name():
            return False
        owner = os.pread(self._lock, _LONGEST_NAME, 0)
        if not owner:
            os.pwrite(self._lock, self._host, 0)
        elif owner != self._host:
            whose = owner.decode(errors="replace")
            raise StagingError(f"{self._lock_path} is of {whose}: expected a disk of this host alone, or remove it")
        return True

    def _has_name(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), os.lstat(self._lock_path))
        except FileNotFoundError:
            return False

    def manifest(self) -> Manifest | None:
        """Of a complete copy; None also where it cannot be read, as after a full disk or a crash of the node."""
        try:
            text = read_private(self._manifest, most_bytes=_MOST_BYTES)
            return None if text is None else parse_versioned(self._manifest, text, Manifest, _VERSION, what="manifest")
        except RunDirectoryError:
            return None

    def complete(self, manifest: Manifest) -> None:
        """Let the copy in `part` be the one that is used. Raises OSError, StagingError."""
        os.rename(self.part, self.folder)
        try:
            write_atomic(self._manifest, encode_json(manifest))
        except RunDirectoryError as error:
            raise StagingError(str(error)) from error

    def clear(self) -> None:
        """Remove all but the lock. Raises OSError."""
        self._manifest.unlink(missing_ok=True)
        for folder in (self.folder, self.part):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Remove all, as far as that is possible. For the one who holds the lock alone."""
        with suppress(OSError):
            self.clear()
            self._lock_path.unlink(missing_ok=True)

    def remove_unused(self) -> None:
        """Remove all, unless somebody holds the lock; and close it."""
        try:
            if self.lock_alone():
                self.remove()
        finally:
            self.close()

    def close(self) -> None:
        """Give up the lock; a second time nothing happens."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def gigabytes(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB"
