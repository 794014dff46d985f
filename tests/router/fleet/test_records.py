"""The view of the workers while the run directory is sick: garbage, missing folders, records of earlier lives."""

import asyncio
import os
import shutil
import threading

import msgspec
import pytest

from slurminfer.core.background.threads import in_thread
from slurminfer.core.net.identity import make_identity
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.router.fleet.probe import card_of
from slurminfer.router.fleet.records import FOLDER_AWAY_S, VANISHED_S, Found, merge, merge_blind
from slurminfer.router.fleet.worker import ASSUMED_CAPACITY, Worker

from ...support.waiting import eventually


def record(worker_id="w", **fields):
    base = dict(pool="p", engine="native", model="m", state=WorkerState.READY, host="h", job="1", epoch=0, pid=1)
    return WorkerRecord(id=worker_id, updated_at=0.0, url="http://h:1", **{**base, **fields})


def known(*ids, healthy=True, **fields):
    workers = {worker_id: Worker(record(worker_id, **fields)) for worker_id in ids}
    for worker in workers.values():
        worker.trust.probed(0.0, "" if healthy else "silent")
    return workers


def found(*records):
    return Found(records={one.id: one for one in records})


def test_a_life_goes_on_and_a_requeued_worker_begins_a_new_one():
    workers = known("w-0")
    old = workers["w-0"]
    assert merge(workers, found(record("w-0", state=WorkerState.DRAINING)), 0.0)["w-0"] is old
    assert old.record.state is WorkerState.DRAINING
    assert merge(workers, found(record("w-0", epoch=1)), 0.0)["w-0"] is not old


def test_a_record_of_an_earlier_life_changes_nothing():
    workers = known("w-0", epoch=2)
    assert merge(workers, found(record("w-0", epoch=1)), 0.0) == workers
    assert merge(workers, found(record("w-0", epoch=1, job="2")), 0.0)["w-0"] is not workers["w-0"], (
        "another job's epochs"
    )


def test_an_unreadable_file_changes_nothing():
    workers = known("w-0")
    for now in (0.0, 1e6):
        assert merge(workers, Found(complaints={"w-0": "garbage", "w-1": "garbage"}), now) == workers


def test_a_record_that_is_not_listed_once_changes_nothing_and_one_that_stays_away_does():
    workers, other = known("w-0"), record("w-1")
    assert "w-0" in merge(workers, found(other), 10.0)
    assert merge(workers, found(record("w-0")), 11.0)["w-0"].missing_since is None
    assert "w-0" in merge(workers, found(other), 12.0)
    assert "w-0" not in merge(workers, found(other), 12.0 + VANISHED_S)


def test_a_folder_that_stays_away_keeps_those_who_answer():
    workers = known("w-0") | known("w-1", healthy=False)
    assert merge_blind(workers, 5.0) == workers
    assert merge_blind(workers, 4.9 + FOLDER_AWAY_S) == workers
    assert list(merge_blind(workers, 5.0 + FOLDER_AWAY_S)) == ["w-0"]


@pytest.mark.parametrize("capacity", [0, -5, None])
def test_a_senseless_capacity_is_no_capacity(capacity):
    assert Worker(record(capacity=capacity)).capacity == ASSUMED_CAPACITY


def test_a_thread_that_stands_still_is_not_waited_for():
    gate = threading.Event()

    async def look():
        done, _ = await asyncio.wait({in_thread(gate.wait)}, timeout=0.01)
        return done

    assert asyncio.run(look()) == set()
    gate.set()


@pytest.mark.parametrize("text", [b"", b"[1]", b'{"data": 3}', b'{"data": [{"id": "x"}]}', b"[" * 10**5, b"\xff"])
def test_a_senseless_list_of_models_is_none(text):
    assert card_of(text, "m") == {}


def make_fifo(path):
    os.mkfifo(path)


def make_huge(path):
    path.touch()
    os.truncate(path, 2**33)


GARBAGE = {
    "deep": lambda path: path.write_text("[" * 200_000),
    "deep-object": lambda path: path.write_text('{"a":' * 100_000),
    "not-text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "fifo": make_fifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "huge": make_huge,
    "empty": lambda path: path.touch(),
    "number": lambda path: path.write_text("1" * 10_000),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_file_that_is_no_record_is_that_workers_trouble_only(fleet, kind):
    GARBAGE[kind](fleet.run.workers_path / "cpu-7.json")
    fleet.start()
    assert fleet.choosable() == list(fleet.views()) == ["cpu-0", "cpu-1"]


def test_a_worker_whose_file_becomes_unreadable_stays_as_it_was(fleet):
    fleet.start()
    (fleet.run.workers_path / "cpu-0.json").write_text("garbage")
    fleet.add("cpu-2")
    fleet.wait_for("cpu-0", "cpu-1", "cpu-2")


def test_a_record_that_has_not_changed_is_parsed_once(fleet, monkeypatch):
    parsed, read_worker = [], type(fleet.run).read_worker

    def read(run, name):
        parsed.append(name)
        return read_worker(run, name)

    monkeypatch.setattr(type(fleet.run), "read_worker", read)
    fleet.start()
    fleet.add("cpu-2")
    fleet.wait_for("cpu-0", "cpu-1", "cpu-2")
    assert sorted(parsed) == ["cpu-0", "cpu-1", "cpu-2"]


def test_a_file_whose_name_is_no_workers_id_is_ignored(fleet):
    text = (fleet.run.workers_path / "cpu-0.json").read_text()
    for name in ["cpu", "cpu-x", "-1", "a b-1", "cpu-1\n", "e\u0301-1", "x" * 200 + "-1"]:
        (fleet.run.workers_path / f"{name}.json").write_text(text.replace("cpu-0", name.strip()))
    fleet.start()
    assert list(fleet.views()) == ["cpu-0", "cpu-1"]


def test_workers_that_share_a_job_are_workers_each(fleet):
    text = (fleet.run.workers_path / "cpu-0.json").read_text()
    (fleet.run.workers_path / "cpu-7.1.json").write_text(text.replace("cpu-0", "cpu-7.1"))
    fleet.start()
    assert list(fleet.views()) == ["cpu-0", "cpu-1", "cpu-7.1"]


@pytest.mark.parametrize("fault", ["away", "empty", "a file"])
def test_workers_stay_while_their_folder_is_sick(fleet, fault, caplog):
    fleet.start()
    folder, aside = fleet.run.workers_path, fleet.run.path / "aside"
    folder.rename(aside)
    if fault == "empty":
        folder.mkdir(mode=0o700)
    elif fault == "a file":
        folder.touch()
    eventually(lambda: "the view of the workers stays as it was" in caplog.text)
    assert fleet.choosable() == ["cpu-0", "cpu-1"]
    if fault == "a file":
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    fleet.add("cpu-2")
    fleet.wait_for("cpu-0", "cpu-1", "cpu-2")


@pytest.mark.parametrize("url", ["https://[::1", "https://h:99999999", "https:// ", "https://"])
def test_a_url_that_is_none_disturbs_nobody(fleet, url):
    stub = fleet._deployment.stubs[0]
    fleet.run.write_worker(msgspec.structs.replace(stub.record, url=url, socket=None))
    make_identity(fleet.run.worker_identity_path("cpu-0", 0), "cpu-0")
    fleet.start()
    assert fleet.choosable() == ["cpu-1"]


def test_a_worker_that_was_not_asked_yet_is_starting():
    worker = Worker(record("w-0"))
    assert worker.standing == "starting"
    worker.trust.probed(0.0, "/health fails")
    assert worker.standing == "ready" and not worker.choosable
