"""The sealed shards of a generation: which there are, what they add up to, and their records."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from .layout import Generation, Sums, SumsName, sealed_shard, shard_name
from .record import Record, decode
from .segments import sums_of

_NOTHING_LOST = "nothing is lost: mend that and start the same command again"


class SealedShards:
    """As they were found when they were last listed. Of files with sums only names are read.

    A shard is sealed once, by whoever is first. All methods raise BatchError.
    """

    def __init__(self, generation: Generation, shards: int) -> None:
        self._generation, self._shards = generation, shards
        self._names: set[str] = set()
        self._sums: dict[int, Sums] = {}
        self._total: Sums | None = None

    def __contains__(self, number: object) -> bool:
        return number in self._sums

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def total(self) -> Sums:
        """What all of them add up to."""
        if self._total is None:
            columns = zip(*(sums.figures for sums in self._sums.values()), strict=True)
            self._total = Sums(*map(sum, columns))
        return self._total

    def refresh(self) -> None:
        """List them again."""
        names = self._listed()
        if names == self._names:
            return
        told = self._told(names)
        there = {number for number in map(sealed_shard, names) if number is not None and number < self._shards}
        self._sums = {number: told.get(number) or self._sums.get(number) or self._added(number) for number in there}
        self._names, self._total = names, None

    def write(self, number: int, sums: Sums, lines: Generator[bytes, None, None], driver: str) -> None:
        """Seal a shard: a file that appears when it is whole and on the disk.

        Nothing is changed where another driver has been quicker.
        """
        path = self._generation.sealed_file(number)
        beside = path.with_name(f".{shard_name(number)}.{driver}")
        try:
            with closing(lines), beside.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(beside, path)
                self._generation.sums_file(number, sums).touch()
                sync_folder(path.parent)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}; {_NOTHING_LOST}") from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        self.refresh()

    def open_failed(self, driver: str, is_dead: Callable[[str], bool]) -> list[int]:
        """Open those again that have failed rows: what is sealed becomes a segment of `driver`. Gives their numbers.

        `is_dead`: as of `clean`.
        """
        opened = [number for number, sums in self._sums.items() if sums.failed]
        try:
            for number in opened:
                os.rename(self._generation.sealed_file(number), self._generation.segment(number, f"zz-{driver}"))
        except OSError as error:
            raise BatchError(f"cannot write {self._generation.sealed}: {error.strerror}; {_NOTHING_LOST}") from error
        if opened:
            self.clean(is_dead)
        return opened

    def clean(self, is_dead: Callable[[str], bool]) -> None:
        """Have each sealed shard's sums in a file's name, and none of others; remove what dead drivers were sealing.

        For a driver that is alone, as far as it knows. `is_dead`: tells whether the driver of an id is.
        """
        self.refresh()
        right = {str(SumsName(number, sums)) for number, sums in self._sums.items()}
        for name in self._names:
            is_left = name.startswith(".") and is_dead(name.rpartition(".")[2])
            if is_left or (SumsName.parse(name) is not None and name not in right):
                with suppress(OSError):
                    (self._generation.sealed / name).unlink()
        for name in right - self._names:
            with suppress(OSError):
                (self._generation.sealed / name).touch()
        self.refresh()

    def records(self, number: int, rows: int) -> Iterator[Record]:
        """The records of a sealed shard of so many rows, in order. Raises FileNotFoundError where it is none by now."""
        count = 0
        for record in self._read(number):
            if record.index != count:
                raise self._damaged(number, f"row {record.index} in place of row {count}")
            yield record
            count += 1
        if count != rows:
            raise self._damaged(number, f"{count} of {rows} rows")

    def _listed(self) -> set[str]:
        try:
            return set(os.listdir(self._generation.sealed))
        except OSError as error:
            raise BatchError(f"cannot read {self._generation.sealed}: {error.strerror}") from error

    def _told(self, names: Iterable[str]) -> dict[int, Sums]:
        """What the names of files say that shards add up to."""
        parsed = (SumsName.parse(name) for name in sorted(names, reverse=True))
        return {found.shard: found.sums for found in parsed if found is not None}

    def _added(self, number: int) -> Sums:
        """What the records of a shard add up to, whose driver died before it told; nothing where it is gone by now."""
        with suppress(FileNotFoundError):
            return sum(map(sums_of, self._read(number)), Sums())
        return Sums()

    def _read(self, number: int) -> Iterator[Record]:
        """All records of a shard. Raises FileNotFoundError too."""
        path = self._generation.sealed_file(number)
        try:
            with path.open("rb") as file:
                yield from map(decode, file)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BatchError(f"cannot read {path}: {error.strerror}") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._damaged(number, str(error)) from error

    def _damaged(self, number: int, what: str) -> BatchError:
        advice = "remove it, and start the same command again: its rows are then done anew"
        return BatchError(f"{self._generation.sealed_file(number)} is damaged: {what}; {advice}")


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
