"""Copies a model with checksums, and reads a copy again to compare.

Files are taken in segments, by several threads, because one stream of a parallel filesystem is slower than its network.
Each segment has a checksum (XXH3, 128 bits: it finds damage, not malice) of what was read from the source.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import xxhash

from ...core.errors import StagingError
from ...core.trust import PRIVATE_FILE, PRIVATE_FOLDER
from .source import Source, SourceFile

_SEGMENT = 64 << 20
_BLOCK = 8 << 20
_THREADS = 8
_LOOK_S = 0.2
Look = Callable[[], None]  # called several times a second; raises to give up
_Result = TypeVar("_Result")


class StagedFile(msgspec.Struct, frozen=True):
    """A file of a copy."""

    name: str
    size: int
    mtime_ns: int  # the source's, so that what is kept for the model by its files' times holds for the copy too
    ctime_ns: int  # which changes with whatever is done to the file
    checksums: tuple[str, ...]  # of its segments


def copy(source: Source, target: Path, look: Look) -> tuple[StagedFile, ...]:
    """Copy a model to `target`, which is not there yet, down to the disk.

    Raises OSError, StagingError if the source changes meanwhile, and whatever `look` raises.
    """
    for file in source.files:
        _make(target / file.name, file.size)
    abort = threading.Event()
    steps = [
        partial(_copy, source.path / file.name, target / file.name, start, file.size, abort)
        for file in source.files
        for start in _starts(file.size)
    ]
    checksums = iter(_run(steps, look, abort))
    sums = {file: tuple(next(checksums) for _ in _starts(file.size)) for file in source.files}
    for file in source.files:
        _require_unchanged(source.path / file.name, file)
    finish = [partial(_finish, target / file.name, file, sums[file]) for file in source.files]
    return tuple(_run(finish, look, abort))


def looks_whole(files: Iterable[StagedFile], target: Path) -> bool:
    """Whether nothing was done to the copy since it was made, as far as sizes and times tell."""
    return all(_status(target / file.name) == (file.size, file.mtime_ns, file.ctime_ns) for file in files)


def is_whole(files: Iterable[StagedFile], target: Path, look: Look) -> bool:
    """Whether the copy is what was read from the source; reads all of it. Raises OSError, and what `look` raises."""
    abort = threading.Event()
    if any(_status(target / file.name)[:2] != (file.size, file.mtime_ns) for file in files):
        return False
    wanted = [checksum for file in files for checksum in file.checksums]
    steps = [
        partial(_read, target / file.name, start, file.size, abort) for file in files for start in _starts(file.size)
    ]
    return _run(steps, look, abort) == wanted


def _starts(size: int) -> range:
    return range(0, size, _SEGMENT)


def _status(path: Path) -> tuple[int, int, int]:
    try:
        found = path.lstat()
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _make(path: Path, size: int) -> None:
    """An empty file that has its room on the disk already."""
    path.parent.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        if size:
            os.posix_fallocate(file, 0, size)
    finally:
        os.close(file)


def _copy(source: Path, target: Path, start: int, size: int, abort: threading.Event) -> str:
    writer = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return _segment(source, start, size, abort, partial(_write, writer), keep=False)
    finally:
        os.close(writer)


def _read(path: Path, start: int, size: int, abort: threading.Event) -> str:
    return _segment(path, start, size, abort, lambda _data, _at: None, keep=True)


def _segment(
    path: Path,
    start: int,
    size: int,
    abort: threading.Event,
    take: Callable[[memoryview, int], None],
    *,
    keep: bool,
) -> str:
    """The checksum of a segment. `take` gets the data and where it was; `keep`: the page cache may have it after."""
    end, at, checksum, buffer = min(start + _SEGMENT, size), start, xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    # Without O_NONBLOCK, opening a FIFO that somebody has put there would wait for one who writes into it.
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while at < end and not abort.is_set():
            count = os.preadv(reader, [buffer[: end - at]], at)
            if count == 0:
                raise StagingError(f"{path} has become shorter")
            checksum.update(buffer[:count])
            take(buffer[:count], at)
            at += count
        if not keep:
            os.posix_fadvise(reader, start, end - start, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(reader)
    return checksum.hexdigest()


def _write(file: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(file, data, at)
        data, at = data[count:], at + count


def _finish(path: Path, file: SourceFile, checksums: tuple[str, ...]) -> StagedFile:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.utime(descriptor, ns=(file.mtime_ns, file.mtime_ns))
        os.fsync(descriptor)  # which also says what went wrong while the kernel wrote
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return StagedFile(file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, checksums)


def _require_unchanged(path: Path, file: SourceFile) -> None:
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise StagingError(f"{path} has changed while it was copied")


def _run(steps: Iterable[Callable[[], _Result]], look: Look, abort: threading.Event) -> list[_Result]:
    """What the steps return, in their order; they run in several threads, while this one looks."""
    with ThreadPoolExecutor(_THREADS, "staging") as threads:
        futures = [threads.submit(step) for step in steps]
        try:
            for _ in _until_done(futures):
                look()
            return [future.result() for future in futures]
        except BaseException:
            abort.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _until_done(futures: list[Future[_Result]]) -> Iterator[None]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, _LOOK_S, FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            return
        yield
