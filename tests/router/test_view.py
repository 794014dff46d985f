"""A router whose run directory cannot be written for a while, or has a damaged record of it."""

from contextlib import suppress

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.records import VERSION
from slurminfer.router import announcement
from slurminfer.router.announcement import router_record


def test_a_router_whose_record_cannot_be_written_serves_and_writes_it_later(empty, monkeypatch, eventually, caplog):
    empty.add("cpu-0")
    written, full = type(empty.run).write_router, [True]

    def write(run, record):
        if full[0]:
            full[0] = False
            raise RunDirectoryError("cannot write router.json: No space left on device")
        written(run, record)

    monkeypatch.setattr(type(empty.run), "write_router", write)
    empty.start_router()
    assert "No space left on device" in caplog.text
    assert empty.chat().status_code == 200


@pytest.mark.parametrize("damage", ["cut", "no record", "writable", "away"])
def test_a_record_that_was_damaged_is_written_again(empty, eventually, damage):
    empty.start_router()
    path, whole = empty.run.router_path, empty.run.read_router()
    if damage == "cut":
        path.write_text(path.read_text()[:40])
    elif damage == "no record":
        path.write_text('{"version": 1}')
    elif damage == "writable":
        path.chmod(0o666)
    else:
        path.unlink()
    eventually(lambda: readable(empty.run) == whole)


def readable(run):
    with suppress(RunDirectoryError):
        return run.read_router()


@pytest.mark.parametrize("name", ["endpoint.env", "router.pem"])
def test_so_are_the_files_beside_it(empty, eventually, monkeypatch, name):
    monkeypatch.setattr(announcement, "_LOOK_S", 0.05)
    empty.start_router()
    path = empty.run.path / name
    whole = path.read_text()
    path.write_text("damaged")
    eventually(lambda: path.read_text() == whole)


def test_a_record_of_another_version_is_left_alone(empty, loop):
    record = router_record(url="http://here:1")
    announced = announcement.Announcement(empty.run, record, lambda pem: None)
    loop.run(announced.publish())
    other = empty.run.router_path.read_text().replace(f'"version": {VERSION}', '"version": 99')
    empty.run.router_path.write_text(other)
    for _ in range(5):
        loop.run(announced.look())
    assert empty.run.router_path.read_text() == other


def test_the_record_of_a_successor_that_lives_is_its_own_to_write_again(empty, loop, monkeypatch):
    record, successor = router_record(url="http://here:1"), router_record(url="http://there:1")
    announced = announcement.Announcement(empty.run, record, lambda pem: None)
    announced.successor, lives = successor, [True]

    async def answers(run, router):
        return lives[0]

    monkeypatch.setattr(announcement, "answers", answers)
    empty.run.router_path.write_text("damaged")
    for _ in range(5):
        loop.run(announced.look())
    assert empty.run.router_path.read_text() == "damaged"
    lives[0] = False
    loop.run(announced.look())
    assert empty.run.read_router() == record
