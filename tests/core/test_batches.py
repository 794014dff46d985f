"""What drivers of batches leave in the run directory."""

import os
import time

import msgspec
import pytest

from slurminfer.core.batches import (
    FORGOTTEN_S,
    MOST_SHOWN,
    BatchRecord,
    forget_silent,
    read_batches,
    remove_batch,
    write_batch,
)
from slurminfer.core.errors import RunDirectoryError


def record(**fields):
    given = {"batch": "b", "name": "out", "written_at": 5.0, "began_at": 1.0, "total": 10, "answered": 4, "failed": 1}
    return BatchRecord(**{**given, **fields})


def test_a_driver_writes_replaces_and_removes_its_own(tmp_path):
    folder = tmp_path / "batches"
    assert read_batches(folder) == {}
    write_batch(folder, "one", record())
    write_batch(folder, "two", record(answered=5))
    write_batch(folder, "one", record(answered=6))
    assert {driver: found.answered for driver, found in read_batches(folder).items()} == {"one": 6, "two": 5}
    remove_batch(folder, "one")
    remove_batch(folder, "one")
    assert list(read_batches(folder)) == ["two"]
    assert (folder.stat().st_mode | (folder / "two.json").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', msgspec.json.encode(record(answered=-1)).decode(), "[" * 100_000, "x" * 100_000,
     msgspec.json.encode(record(name="n" * 1000)).decode(), msgspec.json.encode(record(version=99)).decode()],
)  # fmt: skip
def test_what_is_no_record_is_passed_over(tmp_path, text):
    write_batch(tmp_path, "good", record())
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "bad.json").chmod(0o600)
    (tmp_path / ".good.json.node.1").write_text("half")
    (tmp_path / "folder.json").mkdir()
    assert list(read_batches(tmp_path)) == ["good"]


def test_a_folder_that_is_none_is_said(tmp_path):
    (tmp_path / "batches").write_text("")
    with pytest.raises(RunDirectoryError, match="batches"):
        read_batches(tmp_path / "batches")


def test_a_router_reads_so_many_and_no_more(tmp_path):
    for number in range(MOST_SHOWN + 5):
        (tmp_path / f"{number:04}.json").write_text("{}")
    write_batch(tmp_path, "zzz", record())
    assert read_batches(tmp_path) == {}


def test_what_killed_drivers_have_left_is_removed_later(tmp_path):
    for driver in ("killed", "living"):
        write_batch(tmp_path, driver, record())
    now = time.time()
    os.utime(tmp_path / "killed.json", (now - FORGOTTEN_S - 1, now - FORGOTTEN_S - 1))
    forget_silent(tmp_path, now)
    assert list(read_batches(tmp_path)) == ["living"]
    forget_silent(tmp_path / "none", now)
