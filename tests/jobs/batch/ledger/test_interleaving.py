"""Claims and ledgers under all orders of steps: hypothesis looks for one in which something goes wrong."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.claims import Claims
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.ledger.signs import Signs
from slurminfer.jobs.batch.parameters import Parameters

from .conftest import answer, failure, plan_of, texts
from .interleaved import Interleaved

# Who goes on, how far, and whether it is stopped then for so long that others take it for dead.
ORDER = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), max_size=40)


@contextmanager
def folder() -> Iterator[Path]:
    path = tempfile.mkdtemp()
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)


class Liveness(Signs):
    """Who is dead is said by the test."""

    def __init__(self, dead: set[str], mine: str) -> None:
        self._dead, self._mine = dead, mine

    def is_mine(self, id: str) -> bool:
        return id == self._mine

    def is_dead_by_id(self, id: str) -> bool:
        return id in self._dead


class Contender:
    """Takes and gives back one name, some times."""

    def __init__(self, path: Path, dead: set[str], name: str, holding: set[str]) -> None:
        self.name, self._holding = name, holding
        self._claims = Claims(path, Liveness(dead, name), name)
        self.was_dead = False  # since it last began to take

    def run(self) -> None:
        for _ in range(3):
            self._claims.look()
            self.was_dead = False
            if self._claims.take("opening"):
                if not self.was_dead:
                    assert not self._holding, f"{self.name} has what {self._holding} has"
                    self._holding.add(self.name)
                self._claims.look()  # some step while it has it
                self._holding.discard(self.name)
                self._claims.give_back("opening")


@settings(derandomize=True)
@given(ORDER)
def test_one_living_driver_has_a_name(order):
    with folder() as path, pytest.MonkeyPatch.context() as patch, Interleaved(patch) as threads:
        dead: set[str] = set()
        holding: set[str] = set()
        drivers = [Contender(path, dead, name, holding) for name in "abcd"]
        for driver in drivers:
            threads.add(driver.run)
        for number, steps, dies in order:
            driver = drivers[number]
            dead.discard(driver.name)
            for _ in range(steps):
                threads.step(number)
            if dies:  # it is stopped for a minute
                dead.add(driver.name)
                driver.was_dead = True
                holding.discard(driver.name)
        dead.update("abcd")
        last = Claims(path, Liveness(dead, "z"), "z")
        last.look()
        assert last.take("opening") and last.holder("opening") == "z"


class Batch:
    """Drivers of one ledger of two shards of two rows."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, threads: Interleaved) -> None:
        self._path, self._threads = path / "out.ledger", threads
        self.dead: set[int] = set()
        self.was_dead: set[int] = set()
        self._ids: dict[str, int] = {}
        self.sealed: set[tuple[int, int]] = set()  # rows that had an answer in a sealed shard once
        patch.setattr(Signs, "is_dead", lambda signs, sign: sign.ended or self._ids.get(sign.id) in self.dead)
        patch.setattr(Signs, "renewed", lambda signs: nullcontext())

    def open(self, number: int) -> Ledger:
        def wait(seconds: float) -> None:
            self._threads.pause()

        begin = Signs.begin

        def note(signs: Signs, **options: bool) -> None:
            assert signs.mine is not None
            self._ids.setdefault(signs.mine.id, number)
            begin(signs, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Signs, "begin", note)
            return Ledger(self._path, Parameters(), lambda: plan_of(2, 2), sleep=wait, clock=lambda: 0.0)

    def drive(self, number: int, fails: bool) -> None:
        """Work as a driver does. One that was taken for dead may be told so: it ends, and nothing is lost."""
        try:
            with self.open(number) as ledger:
                while (shard := ledger.claim()) is not None:
                    for index in sorted({0, 1} - ledger.settled(shard)):
                        self._threads.pause()
                        wrong = fails and index == number % 2
                        ledger.append(shard, failure(index) if wrong else answer(index, f"{number}"))
                    ledger.sync()
                    ledger.seal(shard)
                    self.note()
        except BatchError:
            if number not in self.was_dead:
                raise

    def note(self) -> None:
        """Remember which rows have answers in sealed shards."""
        for path in self._path.glob("[0-9]*/sealed/*.jsonl"):
            for line in path.read_bytes().splitlines():
                if b'"answer"' in line:
                    self.sealed.add((int(path.name[:5]), int(line.split(b'"index":')[1].split(b",")[0])))

    def finish(self) -> None:
        """All drivers are dead, and one begins anew: each row is there once, and what was sealed is not done again."""
        with self.open(9) as ledger:
            while (shard := ledger.claim()) is not None:
                settled = ledger.settled(shard)
                again = {(shard.number, index) for index in {0, 1} - settled} & self.sealed
                assert not again, f"{again} are done again"
                for index in sorted({0, 1} - settled):
                    ledger.append(shard, answer(index, "last"))
                ledger.seal(shard)
            for number in range(2):
                records = list(ledger.records(number))
                assert [record.index for record in records] == [0, 1]
                assert "no" not in texts(records)
            assert ledger.counts().answered == 4


@settings(derandomize=True)
@given(ORDER, st.sets(st.integers(0, 3)))
def test_every_row_is_there_once(order, failing):
    with folder() as path, pytest.MonkeyPatch.context() as patch, Interleaved(patch) as threads:
        batch = Batch(path, patch, threads)
        for number in range(4):
            threads.add(partial(batch.drive, number, number in failing))
        for number, steps, dies in order:
            batch.dead.discard(number)
            for _ in range(3 * steps):
                threads.step(number)
            if dies:
                batch.dead.add(number)
                batch.was_dead.add(number)
        batch.dead.update(range(4))
        batch.note()
        batch.finish()
