"""Conversations on disk: each turn once, for as long as it is needed."""

import os
import socket
import threading
from contextlib import suppress

import pytest

from slurminfer.core import files
from slurminfer.core.errors import DamagedFileError, RunDirectoryError
from slurminfer.router.responses import folder as folder_module
from slurminfer.router.responses import store as module

from .conftest import files_in


def chain(store, keep, turns, tenant="one", size=10):
    """The ids of a conversation."""
    ids = [keep(store, tenant, size)]
    for _ in range(turns - 1):
        ids.append(keep(store, tenant, size, previous=ids[-1]))
    return ids


def turns_of(store, id, tenant="one"):
    """The ids of a response and of those before it, as they are read."""
    found, record = [], store.get(tenant, id)
    while record is not None:
        found.append(record.id)
        if not record.previous:
            return found[::-1] if bytes(record.before) == b"[]" else ["before", *found[::-1]]
        record = store.before(tenant, record.previous)
    return None


def test_each_turn_is_written_once(store_of, keep, tmp_path):
    store = store_of()
    ids = chain(store, keep, 100, size=1000)
    assert turns_of(store, ids[-1]) == ids
    assert sum(path.stat().st_size for path in files_in(tmp_path)) < 100 * 1500


def test_one_that_is_deleted_stays_for_those_after_it_only(store_of, keep, tmp_path):
    store = store_of()
    ids = chain(store, keep, 3)
    fork = keep(store, previous=ids[1])
    assert store.delete("one", ids[1])
    assert store.get("one", ids[1]) is None and not store.delete("one", ids[1])
    assert turns_of(store, ids[2]) == ids and turns_of(store, fork) == [*ids[:2], fork]
    store.sweep()
    assert store.delete("one", ids[2])
    assert turns_of(store, fork) == [*ids[:2], fork]
    assert {path.stem for path in files_in(tmp_path)} == {*ids[:2], fork}
    assert store.delete("one", fork)
    assert {path.stem for path in files_in(tmp_path)} == {ids[0]}


def test_a_conversation_is_kept_for_as_long_as_its_last_turn(store_of, keep, clock, tmp_path):
    store = store_of(seconds=1000)
    ids = [keep(store)]
    for _ in range(10):
        clock.now += 300
        ids.append(keep(store, previous=ids[-1]))
        store.sweep()
        assert turns_of(store, ids[-1]) == ids
    assert store.get("one", ids[0]) is None, "clients do not see it any more"
    clock.now += 1000
    removed, _ = store.sweep()
    assert files_in(tmp_path) == [] and removed["expired"] == 11


@pytest.mark.parametrize("happens", ["deleted", "nearly too old", "of too many"])
def test_a_turn_after_one_that_goes_meanwhile_has_the_conversation_itself(store_of, keep, clock, happens):
    store = store_of(seconds=1000, of_tenant=3)
    ids = chain(store, keep, 2)
    if happens == "deleted":
        store.delete("one", ids[1])
    elif happens == "nearly too old":
        clock.now += 990
    else:
        for _ in range(3):
            keep(store)
        store.tidy(ids[0])
    last = keep(store, previous=ids[1])
    assert turns_of(store, last) == ["before", last]
    clock.now += 20
    store.sweep()
    assert turns_of(store, last) == ["before", last]


def test_two_requests_go_on_with_the_same_response(store_of, keep):
    store = store_of()
    first = keep(store)
    made = []
    threads = [threading.Thread(target=lambda: made.append(keep(store, previous=first))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8
    assert all(turns_of(store, id) == [first, id] for id in made)


def test_a_chain_is_read_while_its_turns_are_deleted_and_swept(store_of, keep, monkeypatch):
    """Between any two files that are read, all but the last turn may be deleted."""
    store, other = store_of(), store_of()
    ids = chain(store, keep, 6)
    real, left = store.before, list(ids[:-1])

    def before(tenant, id):
        if left:
            assert other.delete("one", left.pop(0))
            other.sweep()
        return real(tenant, id)

    monkeypatch.setattr(store, "before", before)
    assert turns_of(store, ids[-1]) == ids
    assert left == []


def test_a_turn_that_is_added_while_the_one_before_is_removed_loses_nothing(store_of, keep, monkeypatch):
    """Whether the other one lists the folder before the turn is written or after it."""
    for happens in ("before", "after"):
        store, other = store_of(), store_of()
        first = keep(store)
        real = folder_module.write

        def write(path, data, happens=happens, other=other, first=first, real=real):
            if happens == "before":
                other.delete("one", first)
            real(path, data)
            if happens == "after":
                other.delete("one", first)

        with monkeypatch.context() as patch:
            patch.setattr(module, "write", write)
            second = keep(store, previous=first)
        assert turns_of(store, second) in ([first, second], ["before", second])


def test_two_routers_use_one_directory(store_of, keep, clock):
    """One takes over from the other: what one has written, hidden or removed is so for the other."""
    old, new = store_of(seconds=1000), store_of(seconds=1000)
    ids = chain(old, keep, 3)
    fourth = keep(new, previous=ids[-1])
    assert turns_of(old, fourth) == [*ids, fourth]
    assert new.delete("one", ids[-1]) and old.get("one", ids[-1]) is None
    fifth = keep(old, previous=fourth)
    clock.now += 1
    old.sweep()
    new.sweep()
    assert turns_of(new, fifth) == [*ids, fourth, fifth]


def hole(path):
    with path.open("wb") as file:
        file.truncate(2**40)


PLANTED = {
    "a link": lambda path, elsewhere: path.symlink_to(elsewhere),
    "a FIFO": lambda path, elsewhere: os.mkfifo(path),
    "a folder": lambda path, elsewhere: path.mkdir(),
    "nothing in it": lambda path, elsewhere: path.touch(0o600),
    "garbage": lambda path, elsewhere: path.write_bytes(os.urandom(1000)),
    "another's response": lambda path, elsewhere: os.link(elsewhere, path),
    "other JSON": lambda path, elsewhere: path.write_text('{"id": 1}'),
    "deep JSON": lambda path, elsewhere: path.write_text("[" * 100_000),
    "writable by others": lambda path, elsewhere: (path.touch(), path.chmod(0o666)),
    "a hole of a terabyte": lambda path, elsewhere: hole(path),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_put_in_the_place_of_a_response_is_none_and_goes(store_of, keep, clock, tmp_path, what):
    store = store_of(seconds=1000)
    other, id = keep(store), keep(store)
    (path,) = [path for path in files_in(tmp_path) if path.stem == id]
    (elsewhere,) = [path for path in files_in(tmp_path) if path.stem == other]
    content = elsewhere.read_bytes()
    path.unlink()
    PLANTED[what](path, elsewhere)
    with suppress(DamagedFileError):
        assert store.get("one", id) is None
    assert store.get("one", other) is not None
    store.delete("one", id)
    assert not os.path.lexists(path) or what == "another's response"
    clock.now += 1000
    _, failed = store.sweep()
    assert failed == [] and files_in(tmp_path) == []
    assert not path.parent.exists() and content


def test_a_folder_that_is_a_link_is_not_written_to(store_of, keep, tmp_path):
    store = store_of()
    id = keep(store)
    (file,) = files_in(tmp_path)
    folder, elsewhere = file.parent, tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(RunDirectoryError, match="cannot write"):
        keep(store)
    assert [path.stem for path in elsewhere.iterdir()] == [id]


def test_a_folder_that_others_may_write_is_not_used(store_of, keep, tmp_path):
    store = store_of()
    id = keep(store)
    (file,) = files_in(tmp_path)
    file.parent.chmod(0o777)
    with pytest.raises(RunDirectoryError, match="may be written by others"):
        keep(store)
    with pytest.raises(DamagedFileError, match="may be written by others"):
        store.get("one", id)


def test_strangers_in_the_folders_go_when_they_are_old(store_of, keep, clock, tmp_path):
    store = store_of(seconds=10_000)
    id = keep(store)
    (file,) = files_in(tmp_path)
    (file.parent / "link").symlink_to("/")
    os.mkfifo(file.parent / "fifo")
    (file.parent / "folder" / "in").mkdir(parents=True)
    (file.parent / ("resp_" + "0" * 32 + ".json")).write_text("{}")  # of another version
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(file.parent / "s")[:100])
    for path in file.parent.iterdir():
        os.utime(path, (clock.now, clock.now), follow_symlinks=False)
    (tmp_path / "responses" / "file").touch()
    store.sweep()
    assert len(list(file.parent.iterdir())) == 6
    clock.now += 601
    assert store.sweep()[1] == []
    assert [path.stem for path in file.parent.iterdir()] == [id]


def test_what_cannot_be_removed_holds_up_nothing_else(store_of, keep, clock, tmp_path, monkeypatch):
    store = store_of(seconds=100)
    ids = [keep(store, tenant) for tenant in ("one", "two", "three") for _ in range(3)]
    real = files.remove

    def remove(path):
        if path.stem == ids[0]:
            raise RunDirectoryError("no")
        real(path)

    monkeypatch.setattr(files, "remove", remove)
    clock.now += 100
    removed, failed = store.sweep()
    assert [str(error) for error in failed] == ["no"]
    assert [path.stem for path in files_in(tmp_path)] == [ids[0]] and removed["expired"] >= 6
