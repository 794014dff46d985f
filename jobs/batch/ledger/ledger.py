"""A batch's ledger, as one driver uses it."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from ..inputs.plan import InputFile, Plan, Shard
from ..parameters import Parameters
from .appended import AppendedFile
from .carry_over import carry_over
from .folder import read_parameters, read_plan, write_plan
from .layout import DRIVERS, Generation, SealedName, Sums, shard_of_segment
from .record import Record, decode, encode
from .segments import ShardRecords, lines, records_of, write_sealed
from .signs import Signs, sign_here

_LIST_EVERY_S = 1.0
_NOTHING_LOST = "nothing is lost: start the same command again"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a batch is, over all its drivers."""

    rows: int  # of the input; those that are blank are taken out as they are found
    answered: int  # blank ones left out
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Ledger:
    """The ledger of one batch, opened by one driver. A context manager; closing gives all claims back.

    All methods raise BatchError; whatever was written before stays valid. For several threads.

    Args:
        path: its folder, `OUTPUT.ledger`; made if it is not there.
        parameters: of this driver. Others than the ledger's raise BatchError, which says what differs.
        plan: makes the plan where there is none, or where input files have changed.
        files: the input's files as they are now; without it, they are taken to be what they were.
        keys: the keys of a shard's rows by a plan, for when the input's files have changed.
        retry_failed: rows that have failed before are to be tried again; done by the first of the drivers at work only.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        path: Path,
        parameters: Parameters,
        plan: Callable[[], Plan],
        *,
        files: Callable[[], Sequence[InputFile]] | None = None,
        keys: Callable[[Plan], Iterable[tuple[Shard, int, str]]] | None = None,
        retry_failed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.parameters = path, parameters
        self._lock = threading.RLock()
        self._open: dict[int, AppendedFile] = {}
        self._records: dict[int, ShardRecords] = {}
        self._sealed: dict[int, SealedName] = {}
        self._next = 0
        self._clock, self._listed_at = clock, float("-inf")
        self._prepare(parameters)
        try:
            self._generation, self.plan = self._planned(plan, files, keys)
            self._list_sealed()
            if retry_failed and not self._signs.others():
                self._unseal_failed()
        except BaseException:
            self._signs.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            for number in list(self._open):
                with suppress(BatchError):
                    self._give_back(number)
        self._signs.end()

    def claim(self, wanted: Callable[[Shard], bool] = lambda shard: True) -> Shard | None:
        """The next shard that is not sealed and that no living driver has, for this one from now on; None: none now."""
        found = self._first_free(self.plan.shards[self._next :], wanted)
        if found is None:
            self._list_sealed()
            found = self._first_free(self.plan.shards, wanted)
        if found is not None:
            self._next = found.number + 1
        return found

    def settled(self, shard: Shard) -> set[int]:
        """Rows of a claimed shard that need nothing more, by what earlier drivers have left."""
        return {index for index, place in self._found(shard.number).places.items() if place.is_answered}

    def append(self, shard: Shard, record: Record) -> None:
        """Keep a record. It survives this process at once, and the machine after the next `sync`."""
        self._segment(shard.number).append(encode(record))
        mine = self._signs.mine
        assert mine is not None
        mine.rows += 1
        mine.completion_tokens += record.completion_tokens

    def sync(self) -> None:
        """Have all records on the disk, and this driver's sign of life renewed. From a thread: it may take long."""
        for number in list(self._open):
            with self._lock:
                segment = self._open.get(number)
                if segment is not None:
                    segment.sync()
        self._signs.give()

    def seal(self, shard: Shard) -> None:
        """All rows of a claimed shard are settled: write them once, in order. From a thread."""
        number = shard.number
        found = self._found(number)
        places = found.places
        if missing := next((index for index in range(shard.rows) if index not in places), None):
            raise BatchError(f"{self.path}: shard {number} has no record of its row {missing}; {_NOTHING_LOST}")
        name = SealedName(number, found.sums)
        if not self._is_sealed_by_another(number):
            beside = self._generation.sealed / f".{number}.{self._id}"
            write_sealed(self._generation.sealed / str(name), beside, (places[i] for i in range(shard.rows)))
        with self._lock:
            self._sealed.setdefault(number, name)
            if segment := self._open.pop(number, None):
                segment.close()
            self._records.pop(number, None)
        for path in self._segments_of(number):
            path.unlink(missing_ok=True)

    def release(self, shard: Shard) -> None:
        """Give back a claimed shard that is not done."""
        self._give_back(shard.number)

    def is_sealed(self, number: int) -> bool:
        """Whether all rows of a shard are settled."""
        if number not in self._sealed and number not in self._open and self._clock() - self._listed_at >= _LIST_EVERY_S:
            self._list_sealed()
        return number in self._sealed

    def sealed_name(self, number: int) -> str | None:
        """What names the records of a sealed shard: they are the same as long as it is the same."""
        return str(self._sealed[number]) if self.is_sealed(number) else None

    def records(self, number: int) -> Iterator[Record]:
        """The records of a shard, one for each row that has one, in order; all rows of a sealed one."""
        if self.is_sealed(number):
            return records_of(self._generation.sealed / str(self._sealed[number]))
        places = self._found(number).places
        return map(decode, lines(places[index] for index in sorted(places)))

    def counts(self) -> Counts:
        """How far the batch is. Asks the filesystem."""
        self._list_sealed()
        total = sum((name.sums for name in self._sealed.values()), Sums())
        for number in self._unsealed_with_segments():
            total += self._found(number).sums
        return Counts(
            rows=self.plan.rows - total.blank,
            answered=total.answered,
            failed=total.failed,
            prompt_tokens=total.prompt_tokens,
            cached_tokens=total.cached_tokens,
            completion_tokens=total.completion_tokens,
        )

    @property
    def others(self) -> int:
        """How many other drivers are at work now."""
        return len(self._signs.others())

    @property
    def _id(self) -> str:
        assert self._signs.mine is not None
        return self._signs.mine.id

    def _prepare(self, parameters: Parameters) -> None:
        try:
            (self.path / DRIVERS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BatchError(f"cannot make {self.path}: {error.strerror}") from error
        before = read_parameters(self.path, parameters)
        if differences := before.differences(parameters):
            raise BatchError(
                f"{self.path} has results of other parameters: {'; '.join(differences)}; "
                "ask as before, or choose another output"
            )
        self._signs = Signs(self.path / DRIVERS, sign_here(), self._clock)
        self._signs.give(now=True)

    def _planned(
        self,
        plan: Callable[[], Plan],
        now: Callable[[], Sequence[InputFile]] | None,
        keys: Callable[[Plan], Iterable[tuple[Shard, int, str]]] | None,
    ) -> tuple[Generation, Plan]:
        """The generation that counts, made where there is none, and made anew where files have changed."""
        try:
            generation = Generation.newest(self.path)
            if generation is None:
                return self._made(0, plan(), None)
            kept = read_plan(generation.plan)
            if now is None or _same(kept.files, now()):
                return generation, kept
            if self._signs.others():
                raise BatchError(
                    f"{self.path}: the input has changed, and other drivers are still at work on what it was; "
                    "wait for them or end them first"
                )
            fresh = plan()
            return self._made(generation.number + 1, fresh, lambda to: carry_over(generation, to, fresh, keys))
        except OSError as error:
            raise BatchError(f"cannot write {self.path}: {error.strerror}; {_NOTHING_LOST}") from error

    def _made(self, number: int, plan: Plan, fill: Callable[[Generation], None] | None) -> tuple[Generation, Plan]:
        beside = Generation(self.path / f".{number}.{self._id}")
        beside.make()
        try:
            write_plan(beside.plan, plan)
            if fill is not None:
                fill(beside)
            os.rename(beside.path, self.path / str(number))
        except OSError:
            if not (self.path / str(number)).is_dir():
                raise
        finally:
            shutil.rmtree(beside.path, ignore_errors=True)
        made = Generation(self.path / str(number))  # another driver may have been quicker
        return made, read_plan(made.plan)

    def _first_free(self, shards: Sequence[Shard], wanted: Callable[[Shard], bool]) -> Shard | None:
        free = (shard for shard in shards if shard.number not in self._sealed and shard.number not in self._open)
        return next((shard for shard in free if wanted(shard) and self._take(shard)), None)

    def _take(self, shard: Shard) -> bool:
        path = self._generation.claim(shard.number)
        try:
            if not files.claim(path, self._id):
                owner = files.read_text(path)
                if owner is not None and owner != self._id and not self._signs.is_dead_by_id(owner):
                    return False
                if self._is_sealed_by_another(shard.number):
                    return False
                files.write_atomic(path, self._id, mode=None)
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error
        with self._lock:
            self._records.pop(shard.number, None)
            self._open[shard.number] = AppendedFile(self._generation.segment(shard.number, self._id))
        return True

    def _segment(self, number: int) -> AppendedFile:
        segment = self._open.get(number)
        if segment is None:
            raise BatchError(f"{self.path}: shard {number} is not claimed")
        return segment

    def _give_back(self, number: int) -> None:
        with self._lock:
            segment = self._open.pop(number, None)
        if segment is None:
            return
        try:
            segment.sync()
        finally:
            is_empty = segment.size == 0
            segment.close()
            if is_empty:
                segment.path.unlink(missing_ok=True)
            claim = self._generation.claim(number)
            with suppress(RunDirectoryError, OSError):
                if files.read_text(claim) == self._id:
                    claim.unlink(missing_ok=True)

    def _found(self, number: int) -> ShardRecords:
        with self._lock:
            found = self._records.setdefault(number, ShardRecords(self.plan.shards[number].rows))
            found.refresh(self._segments_of(number))
            return found

    def _segments_of(self, number: int) -> list[Path]:
        return sorted(self._generation.segments.glob(f"{number:05d}.*.jsonl"))

    def _unsealed_with_segments(self) -> set[int]:
        try:
            numbers = {shard_of_segment(name) for name in os.listdir(self._generation.segments)}
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error
        return {number for number in numbers if number is not None and number not in self._sealed}

    def _list_sealed(self) -> None:
        self._listed_at = self._clock()
        try:
            names = sorted(os.listdir(self._generation.sealed))
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error
        for name in names:
            found = SealedName.parse(name)
            if found is not None:
                with self._lock:
                    self._sealed.setdefault(found.shard, found)

    def _is_sealed_by_another(self, number: int) -> bool:
        self._list_sealed()
        return number in self._sealed

    def _unseal_failed(self) -> None:
        """Rows that have failed are open again: what was sealed with them becomes a segment."""
        for number, name in list(self._sealed.items()):
            if name.sums.failed:
                try:
                    os.rename(self._generation.sealed / str(name), self._generation.segment(number, f"zz-{self._id}"))
                    self._generation.claim(number).unlink(missing_ok=True)
                except OSError as error:
                    raise BatchError(f"cannot write {self.path}: {error.strerror}; {_NOTHING_LOST}") from error
                del self._sealed[number]


def _same(before: Sequence[InputFile], now: Sequence[InputFile]) -> bool:
    """Whether files are what they were; rows are not counted again."""
    return [_fingerprint(file) for file in before] == [_fingerprint(file) for file in now]


def _fingerprint(file: InputFile) -> tuple[object, ...]:
    return file.path, file.format, file.compression, file.size, file.changed_ns
