"""Results that are kept although the input's files have changed: rows are found again by what they ask for.

Of equal rows, the first in the new input gets the first result in the old one, the second the second. Rows that an
input had once, lacked for a while and has again find their results too. About 50 bytes of memory for each old result.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np

from ....core.errors import BatchError
from ..inputs.plan import Plan, Shard
from .layout import Generation, Sums, sealed_shard, shard_of_segment
from .record import decode, encode
from .segments import sums_of

_KEY_BYTES = 16
Keys = Callable[[Plan], Iterable[tuple[Shard, int, str]]]


class _Results:
    """All answers of a generation, by key."""

    def __init__(self, generation: Generation) -> None:
        self._files: list[Path] = []
        keys, places = bytearray(), array("q")
        for _, paths in groupby(_files(generation), key=lambda found: found[0]):
            seen: set[int] = set()  # rows of this shard
            for _, path in paths:
                for key, offset, length in _answers(path, seen):
                    keys += key
                    places.extend((len(self._files), offset, length))
                self._files.append(path)
        found = np.frombuffer(bytes(keys), dtype=f"S{_KEY_BYTES}")
        order = np.argsort(found, kind="stable")
        self._keys = found[order]
        self._places = np.frombuffer(places, dtype=np.int64).reshape(-1, 3)[order] if places else np.empty((0, 3), int)
        self._taken = np.zeros(len(order), dtype=np.uint32)
        self._opened: dict[int, int] = {}

    def __contains__(self, key: bytes) -> bool:
        return self._is_at(self._first(key), key)

    def take(self, key: bytes) -> bytes | None:
        """The next answer with a key that nobody has taken yet, as a line."""
        first = self._first(key)
        place = first + int(self._taken[first]) if first < len(self._keys) else first
        if not self._is_at(place, key):
            return None
        self._taken[first] += 1
        file, offset, length = map(int, self._places[place])
        if file not in self._opened:
            self.close()
            self._opened[file] = os.open(self._files[file], os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._opened[file], length, offset)

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._opened.values():
            os.close(descriptor)
        self._opened.clear()

    def _first(self, key: bytes) -> int:
        return int(np.searchsorted(self._keys, np.array(key, dtype=self._keys.dtype)))

    def _is_at(self, place: int, key: bytes) -> bool:
        return place < len(self._keys) and bytes(self._keys[place]) == key.rstrip(b"\0")  # numpy takes them off


def carry_over(before: Sequence[Generation], to: Generation, plan: Plan, keys: Keys | None) -> None:
    """Give the rows of a new plan the answers of older generations, as sealed shards and segments of the new one.

    Args:
        before: where the answers are, the latest generation first; they stay as they are. Each has the answers that
            it got from the one before it, so that what is done for a row counts in the latest that knows the row.
        to: where they are to be; its folders are there.
        plan: of `to`.
        keys: shard, number within it and key of each row of a plan, in order; rows without a key are left out.

    Raises BatchError and OSError.
    """
    if keys is None:
        raise BatchError(f"{to.path.parent}: the input has changed since; choose another output")
    results = [_Results(generation) for generation in before]
    try:
        for number, rows in groupby(keys(plan), key=lambda row: row[0].number):
            found = ((index, _take(results, bytes.fromhex(key))) for _, index, key in rows if key)
            _write(to, plan.shards[number], found)
    finally:
        for generation in results:
            generation.close()


def _take(results: Iterable[_Results], key: bytes) -> bytes | None:
    latest = next((found for found in results if key in found), None)
    return None if latest is None else latest.take(key)


def _write(to: Generation, shard: Shard, found: Iterable[tuple[int, bytes | None]]) -> None:
    segment, sums, count = to.segment(shard.number, "carried"), Sums(), 0
    with segment.open("wb") as file:
        for index, line in found:
            if line is not None:
                record = msgspec.structs.replace(decode(line), index=index)
                file.write(encode(record))
                sums += sums_of(record)
                count += 1
        file.flush()
        os.fsync(file.fileno())
    if not count:
        segment.unlink()
    elif count == shard.rows:
        os.rename(segment, to.sealed_file(shard.number))
        to.sums_file(shard.number, sums).touch()


def _files(generation: Generation) -> list[tuple[int, Path]]:
    """All files with records and their shards, in the order of these."""
    found: list[tuple[int, str, Path]] = []
    sealed: set[int] = set()
    for name in os.listdir(generation.sealed):
        shard = sealed_shard(name)
        if shard is not None:
            sealed.add(shard)
            found.append((shard, name, generation.sealed / name))
    for name in os.listdir(generation.segments):
        shard = shard_of_segment(name)
        if shard is not None and shard not in sealed:
            found.append((shard, name, generation.segments / name))
    return [(shard, path) for shard, _, path in sorted(found)]


def _answers(path: Path, seen: set[int]) -> Iterator[tuple[bytes, int, int]]:
    """Key, offset and length of each answer in a file, but for rows that were `seen` before."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                record = decode(line)
                if record.answer is not None and len(record.key) == 2 * _KEY_BYTES and record.index not in seen:
                    seen.add(record.index)
                    yield bytes.fromhex(record.key), offset, len(line)
            except (msgspec.MsgspecError, ValueError, RecursionError):  # torn: it is done again
                pass
            offset += len(line)
