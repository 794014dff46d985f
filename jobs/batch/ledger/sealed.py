"""The sealed shards of a generation: which there are, what they add up to, and their records."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from .layout import Generation, SealedName, Sums
from .record import Record, decode

_NOTHING_LOST = "nothing is lost: mend that and start the same command again"


class SealedShards:
    """As they were found when they were last listed. Only names are read. All methods raise BatchError.

    Should two drivers have sealed a shard at the same moment, the file whose name comes first counts.
    """

    def __init__(self, generation: Generation, shards: int) -> None:
        self._folder, self._shards = generation.sealed, shards
        self._parsed: dict[str, SealedName] = {}
        self._by_shard: dict[int, SealedName] = {}
        self._total: Sums | None = None

    def __contains__(self, number: object) -> bool:
        return number in self._by_shard

    def __len__(self) -> int:
        return len(self._by_shard)

    @property
    def total(self) -> Sums:
        """What all of them add up to."""
        if self._total is None:
            columns = zip(*(name.sums.figures for name in self._by_shard.values()), strict=True)
            self._total = Sums(*map(sum, columns))
        return self._total

    def refresh(self) -> None:
        """List them again."""
        try:
            names = set(os.listdir(self._folder))
        except OSError as error:
            raise BatchError(f"cannot read {self._folder}: {error.strerror}") from error
        if names == self._parsed.keys():
            return
        parsed = {}
        for name in names:
            found = self._parsed.get(name) or SealedName.parse(name)
            if found is not None and found.shard < self._shards:
                parsed[name] = found
        self._parsed = parsed
        self._by_shard = {parsed[name].shard: parsed[name] for name in sorted(parsed, reverse=True)}
        self._total = None

    def write(self, number: int, sums: Sums, lines: Generator[bytes, None, None], driver: str) -> None:
        """Seal a shard: a file that appears when it is whole and on the disk.

        Nothing is changed where another driver has been quicker.
        """
        path, beside = self._folder / str(SealedName(number, sums)), self._folder / f".{number:05d}.{driver}"
        try:
            with closing(lines), beside.open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            self.refresh()  # writing may have taken long
            if number not in self:
                os.rename(beside, path)
                sync_folder(self._folder)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}; {_NOTHING_LOST}") from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        self.refresh()

    def open_failed(self, generation: Generation, driver: str) -> None:
        """Open those again that have failed rows: what is sealed becomes a segment of `driver`."""
        try:
            for place, (text, name) in enumerate(sorted(self._parsed.items())):
                if self._by_shard[name.shard].sums.failed:  # of several files of a shard, each becomes a segment
                    os.rename(self._folder / text, generation.segment(name.shard, f"zz-{driver}-{place}"))
                    generation.claim(name.shard).unlink(missing_ok=True)
        except OSError as error:
            raise BatchError(f"cannot write {self._folder}: {error.strerror}; {_NOTHING_LOST}") from error
        self.refresh()

    def records(self, number: int, rows: int) -> Iterator[Record]:
        """The records of a sealed shard of so many rows, in order. Raises FileNotFoundError where it is none by now."""
        path = self._folder / str(self._by_shard[number])
        count = 0
        try:
            with path.open("rb") as file:
                for line in file:
                    record = decode(line)
                    if record.index != count:
                        raise ValueError(f"row {record.index} in place of row {count}")
                    yield record
                    count += 1
            if count != rows:
                raise ValueError(f"{count} of {rows} rows")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BatchError(f"cannot read {path}: {error.strerror}") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            advice = "remove it, and start the same command again: its rows are then done anew"
            raise BatchError(f"{path} is damaged: {error}; {advice}") from error


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
