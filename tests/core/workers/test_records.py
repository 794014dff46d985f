"""Reading the workers' records again and again."""

import os

import msgspec
import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.workers.records import WorkerRecords

RECORD = WorkerRecord(
    id="w-0", pool="w", engine="native", model="m", state=WorkerState.STARTING, host="n1", job="1", epoch=0, pid=1,
    updated_at=1.0,
)  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "d")
    run.create()
    run.write_worker(RECORD)
    return run


def test_what_has_not_changed_is_not_parsed_again(run, monkeypatch):
    records = WorkerRecords(run)
    first = records.look()
    monkeypatch.setattr(run, "read_worker", None)
    assert records.look() == first == {"w-0": RECORD}


def test_a_record_that_was_replaced_is_read_again(run):
    records = WorkerRecords(run)
    records.look()
    other = msgspec.structs.replace(RECORD, state=WorkerState.READY)
    run.write_worker(other)
    path = run.workers_path / "w-0.json"
    os.utime(path, ns=(1, 1))
    assert records.look() == {"w-0": other}


def test_workers_come_and_go(run):
    records = WorkerRecords(run)
    records.look()
    run.forget_workers({"w-0"})
    run.write_worker(msgspec.structs.replace(RECORD, id="w-1"))
    assert list(records.look()) == ["w-1"]


def test_a_file_that_others_may_write_is_not_believed_although_it_was(run):
    records = WorkerRecords(run)
    records.look()
    (run.workers_path / "w-0.json").chmod(0o666)
    assert isinstance(records.look()["w-0"], RunDirectoryError)


def test_what_cannot_be_read_is_said_for_each_worker_and_may_become_right(run):
    records = WorkerRecords(run)
    path = run.workers_path / "w-0.json"
    path.write_text("{")
    assert isinstance(records.look()["w-0"], RunDirectoryError)
    path.unlink()
    path.symlink_to(run.path / "key")
    assert isinstance(records.look()["w-0"], RunDirectoryError)
    path.unlink()
    run.write_worker(RECORD)
    assert records.look() == {"w-0": RECORD}


def test_a_folder_that_is_not_there_has_no_workers(tmp_path):
    assert WorkerRecords(RunDirectory(tmp_path / "none")).look() == {}
