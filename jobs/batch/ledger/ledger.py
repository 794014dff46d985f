"""A batch's ledger, as one driver uses it."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ....core.errors import BatchError
from ..inputs.plan import InputFile, Plan, Shard
from ..parameters import Parameters
from .appended import AppendedFile, RemovedError
from .claims import Claims
from .folder import agree, require_same
from .generations import open_generation
from .layout import DRIVERS, Generation, Sums, shard_name
from .opening import alone
from .record import Record, decode, encode
from .sealed import SealedShards
from .segments import ShardRecords
from .signs import Signs, sign_here

_LIST_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a batch is, over all its drivers."""

    rows: int  # of the input; those that are blank are taken out as they are found
    answered: int  # blank ones left out
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, rows: int, total: Sums) -> Self:
        """Those of an input of so many rows whose records add up to `total`."""
        return cls(
            rows=rows - total.blank,
            answered=total.answered,
            failed=total.failed,
            prompt_tokens=total.prompt_tokens,
            cached_tokens=total.cached_tokens,
            completion_tokens=total.completion_tokens,
        )


class Ledger:
    """The ledger of one batch, opened by one driver. A context manager; closing gives all claims back.

    All methods raise BatchError; whatever was written before stays valid. For several threads. `append` never waits
    for the others.

    Where this driver was thought dead, another one may have taken its shards over and sealed them. Then appending,
    sealing and giving back such a shard change nothing and are no errors.

    Args:
        path: its folder, `OUTPUT.ledger`; made if it is not there.
        parameters: of this driver. Where the ledger has others, and results or a driver at work, BatchError says what
            differs.
        plan: makes the plan where there is none, or where input files have changed.
        files: the input's files as they are now; without it, they are taken to be what they were.
        keys: the keys of a shard's rows by a plan, for when the input's files have changed.
        retry_failed: rows that have failed before are to be tried again; done by the first of the drivers at work only.
            One opens the ledger at a time, so that there is a first one. False for who only reads: it waits for nobody,
            and others do not see it as a driver at work until it claims a shard.
        clock: seconds, monotonic.
        sleep: called with seconds while another driver opens the ledger.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.path, self.parameters = path, parameters
        self._lock = threading.RLock()
        self._open: dict[int, AppendedFile] = {}
        self._taken: set[int] = set()  # shards of this driver that another one has sealed
        self._records: dict[int, ShardRecords] = {}
        self._segments: dict[int, list[Path]] = {}
        self._next = 0
        self._clock, self._listed_at, self._segments_at = clock, float("-inf"), float("-inf")
        self._prepare()
        self._mine = sign_here()
        self._id = self._mine.id
        self._signs = Signs(path / DRIVERS, self._mine, clock)
        opening = alone(path, self._signs, self._id, sleep) if retry_failed else nullcontext(lambda: False)
        try:
            with opening as is_alone:
                agree(path, parameters, may_replace=is_alone() and not self._at_work())
                self._generation, self.plan = open_generation(
                    path, self._id, plan, now=files, keys=keys, others=self._at_work
                )
                self._claims = Claims(self._generation.claims, self._signs, self._id)
                self._sealed = SealedShards(self._generation, len(self.plan.shards))
                self._list_sealed()
                if is_alone() and not self._at_work():
                    self._tidy()
                if retry_failed:
                    self._signs.begin()
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
        with self._lock:
            self._signs.begin()
            self._claims.look()
            found = self._first_free(range(self._next, len(self.plan.shards)), wanted)
            if found is None:
                self._list_sealed()
                found = self._first_free(range(len(self.plan.shards)), wanted)
            if found is not None:
                self._next = found.number + 1
            return found

    def settled(self, shard: Shard) -> set[int]:
        """Rows of a claimed shard that need nothing more, by what earlier drivers have left."""
        with self._lock:
            return self._found(shard.number, fresh=True).answered

    def append(self, shard: Shard, record: Record) -> None:
        """Keep a record. It survives this process at once, and the machine after the next `sync`."""
        segment = self._open.get(shard.number)
        if segment is None:
            raise BatchError(f"{self.path}: shard {shard.number} is not claimed")
        segment.append(encode(record))
        self._mine.rows += 1
        self._mine.completion_tokens += record.completion_tokens

    def sync(self) -> None:
        """Have all records on the disk, and this driver's sign of life renewed. From a thread: it may take long.

        Raises BatchError also where another driver has begun anew with an input that has changed.
        """
        for number in list(self._open):
            with self._lock:
                self._sync(number)
        self._signs.give()
        self._check_generation()

    def seal(self, shard: Shard) -> None:
        """All rows of a claimed shard are settled: write them once, in order. From a thread."""
        number = shard.number
        with self._lock:
            found = self._found(number, fresh=True)
            segments = self._segments_of(number)  # listed before: later ones are of who has opened the shard again
            if not self._is_sealed_now(number):
                if found.missing is not None:
                    advice = "nothing is lost: start the same command again"
                    raise BatchError(f"{self.path}: shard {number} has no record of its row {found.missing}; {advice}")
                try:
                    self._sealed.write(number, found.sums, found.lines(), self._id)
                except BatchError:
                    if not self._is_sealed_now(number):  # else another driver has, and removed the segments
                        raise
            self._forget(number)
            for path in segments:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def release(self, shard: Shard) -> None:
        """Give back a claimed shard that is not done."""
        with self._lock:
            self._give_back(shard.number)

    def is_sealed(self, number: int) -> bool:
        """Whether all rows of a shard are settled."""
        is_due = number not in self._open and self._clock() - self._listed_at >= _LIST_EVERY_S
        return number in self._sealed or (is_due and self._is_sealed_now(number))

    def records(self, number: int) -> Iterator[Record]:
        """The records of a shard, one for each row that has one, in order; all rows of a sealed one.

        Another driver may seal it meanwhile.
        """
        last, attempts_left = -1, 3
        while attempts_left:
            try:
                for record in self._records_now(number):
                    if record.index > last:
                        last = record.index
                        yield record
                return
            except FileNotFoundError:
                attempts_left -= 1
                self._list_sealed()
            except OSError as error:
                raise BatchError(f"cannot read {self.path}: {error.strerror}") from error
        raise BatchError(f"{self.path}: the files of shard {number} were removed while they were read")

    def counts(self) -> Counts:
        """How far the batch is. Asks the filesystem."""
        with self._lock:
            self._list_segments()
            found = {number: self._found(number).sums for number in self._segments}
            self._list_sealed()  # last: a shard that was sealed meanwhile counts as such
            for number in [number for number in self._records if number in self._sealed]:
                del self._records[number]
            opened = (sums for number, sums in found.items() if number not in self._sealed)
            return Counts.of(self.plan.rows, sum(opened, self._sealed.total))

    @property
    def others(self) -> int:
        """How many other drivers there are now."""
        return len(self._signs.others())

    def _at_work(self) -> int:
        """How many other drivers have opened the ledger and may write it."""
        return sum(not sign.opening for sign in self._signs.others())

    def _prepare(self) -> None:
        try:
            self.path.mkdir(exist_ok=True)
            (self.path / DRIVERS).mkdir(exist_ok=True)
        except OSError as error:
            raise BatchError(f"cannot make {self.path}: {error.strerror}") from error
        require_same(self.path, self.parameters)

    def _check_generation(self) -> None:
        try:
            newest = Generation.newest(self.path)
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error
        if newest is not None and newest.number > self._generation.number:
            raise BatchError(
                f"{self.path}: another driver has begun anew with a changed input; start the same command again"
            )

    def _first_free(self, numbers: Iterable[int], wanted: Callable[[Shard], bool]) -> Shard | None:
        free = (number for number in numbers if number not in self._sealed and number not in self._open)
        shards = (self.plan.shards[number] for number in free)
        return next((shard for shard in shards if wanted(shard) and self._take(shard.number)), None)

    def _take(self, number: int) -> bool:
        name = shard_name(number)
        if not self._claims.take(name) or self._is_sealed_now(number):
            return False
        try:
            self._open[number] = AppendedFile(self._generation.segment(number, self._id))
        except BatchError:
            self._claims.give_back(name)
            raise
        self._segments_at = float("-inf")
        return True

    def _sync(self, number: int) -> None:
        segment = self._open.get(number)
        if segment is None or number in self._taken:
            return
        try:
            segment.sync()
        except RemovedError:
            if not self._is_sealed_now(number):
                raise
            self._taken.add(number)

    def _give_back(self, number: int) -> None:
        segment = self._open.get(number)
        if segment is None:
            return
        try:
            self._sync(number)
        finally:
            self._forget(number)
            if segment.size == 0:
                with suppress(OSError):
                    segment.path.unlink(missing_ok=True)
            self._claims.give_back(shard_name(number))

    def _forget(self, number: int) -> None:
        self._taken.discard(number)
        self._records.pop(number, None)
        if segment := self._open.pop(number, None):
            segment.close()

    def _records_now(self, number: int) -> Iterator[Record]:
        """As they are there now. Raises OSError too: FileNotFoundError where another driver has sealed the shard."""
        if self.is_sealed(number):
            return self._sealed.records(number, self.plan.shards[number].rows)
        with self._lock:
            return map(decode, self._found(number).lines())

    def _found(self, number: int, *, fresh: bool = False) -> ShardRecords:
        found = self._records.setdefault(number, ShardRecords(self.plan.shards[number].rows))
        found.refresh(self._segments_of(number, fresh=fresh))
        return found

    def _segments_of(self, number: int, *, fresh: bool = False) -> list[Path]:
        """All segments of a shard; those that drivers have begun in the last second may be missing, if not `fresh`."""
        if fresh or self._clock() - self._segments_at >= _LIST_EVERY_S:
            self._list_segments()
        return self._segments.get(number, [])

    def _list_segments(self) -> None:
        self._segments_at = self._clock()
        try:
            self._segments = self._generation.segments_by_shard(len(self.plan.shards))
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error

    def _is_sealed_now(self, number: int) -> bool:
        self._list_sealed()
        return number in self._sealed

    def _tidy(self) -> None:
        """Remove what drivers have left that were killed, and open shards again that have failed rows."""
        self._list_segments()  # first: those of a shard that another driver opens again meanwhile are not among them
        self._sealed.clean(self._signs.is_dead_by_id)
        segments = [path for number, paths in self._segments.items() if number in self._sealed for path in paths]
        for path in segments:
            with suppress(OSError):
                path.unlink()
        for number in self._sealed.open_failed(self._id, self._signs.is_dead_by_id):
            self._claims.clear(shard_name(number))
        self._segments_at = float("-inf")

    def _list_sealed(self) -> None:
        with self._lock:
            self._listed_at = self._clock()
            self._sealed.refresh()
