"""A disk that fills: an error that says what to do, a ledger that stays valid, and a batch that goes on afterwards."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.ledger.appended import AppendedFile
from slurminfer.jobs.batch.ledger.ledger import Ledger
from slurminfer.jobs.batch.ledger.look import look
from slurminfer.jobs.batch.parameters import Parameters

from ....support.small_disk import small_disk_at
from .conftest import answer, finish, plan_of, texts

ADVICE = r"mend that and start the same command again"


@pytest.fixture
def largest_file() -> Iterator[None]:
    """Files of this process have 8 KiB at most."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_written_whole_or_not_at_all(tmp_path, largest_file):
    file = AppendedFile(tmp_path / "s")
    file.append(b"a" * 8000 + b"\n")
    with pytest.raises(BatchError, match=ADVICE):
        file.append(b"b" * 500 + b"\n")
    file.append(b"c" * 100 + b"\n")
    file.sync()
    assert file.path.read_bytes() == b"a" * 8000 + b"\n" + b"c" * 100 + b"\n"


def test_what_could_not_be_cut_off_is_cut_off_before_the_next_line(tmp_path, largest_file, monkeypatch):
    file = AppendedFile(tmp_path / "s")
    file.append(b"a" * 8000 + b"\n")

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "ftruncate", fail)
        for _ in range(2):
            with pytest.raises(BatchError, match=ADVICE):
                file.append(b"b" * 500 + b"\n")
    file.append(b"c\n")
    assert file.path.read_bytes() == b"a" * 8000 + b"\nc\n"


def test_sealing_that_fails_loses_nothing(ledgers, request):
    ledger = ledgers.open(3)
    shard = ledger.claim()
    for index in range(3):
        ledger.append(shard, answer(index, str(index) * 4000))
    request.getfixturevalue("largest_file")
    opened = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BatchError, match=ADVICE) as caught:
        ledger.seal(shard)
    assert caught.tb and set(os.listdir("/proc/self/fd")) <= opened  # though the traceback keeps what was called
    assert not list((ledgers.path / "0/sealed").iterdir())
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    ledger.seal(shard)
    assert [text[0] for text in texts(ledger.records(0))] == ["0", "1", "2"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk_at(folder, "128k"):
        yield folder


@pytest.mark.parametrize("ballast_kib", [0, 8, 20, 40, 60, 80, 100, 120, 128])
def test_a_batch_goes_on_when_there_is_room_again(small_disk, ballast_kib):
    """The disk is full at one place or another: opening, claiming, appending, sealing."""
    path, ballast, plan = small_disk / "out.ledger", small_disk / "ballast", plan_of(4, 4, 4, 4)

    def run():
        with Ledger(path, Parameters(), lambda: plan) as ledger:
            while (shard := ledger.claim()) is not None:
                for index in sorted(set(range(4)) - ledger.settled(shard)):
                    ledger.append(shard, answer(index, f"{shard.number} {index} " + "x" * 3000))
                ledger.seal(shard)
            return [texts(ledger.records(number)) for number in range(4)]

    ballast.write_bytes(bytes(ballast_kib * 1024))
    try:
        run()
    except BatchError as error:
        assert "No space left on device" in str(error)
        assert ballast_kib
    if (path / "0").is_dir():
        assert look(path).counts.failed == 0
    ballast.unlink()
    found = run()
    assert [[text.split(" x")[0] for text in shard] for shard in found] == [
        [f"{number} {index}" for index in range(4)] for number in range(4)
    ]


def test_opening_says_what_to_do(ledgers, monkeypatch):
    with ledgers.open(1) as ledger:
        finish(ledger, ledger.claim())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BatchError, match=ADVICE):
        ledgers.open(1)
