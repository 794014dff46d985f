"""Kept responses on disk: whose they are, and how few of them there are."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec import Raw

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.spec.router import RouterSpec
from slurminfer.router.responses import folder as folder_module
from slurminfer.router.responses import store as module
from slurminfer.router.responses.ids import new_id, parsed
from slurminfer.router.responses.record import Record
from slurminfer.router.responses.store import response_store

from .conftest import files_in


def test_a_response_is_its_tenants_alone(store_of, keep, tmp_path):
    store = store_of()
    id = keep(store)
    assert bytes(store.get("one", id).response) == b'"xxxxxxxxxx"'
    assert store.get("two", id) is None
    assert not store.delete("two", id)
    (file,) = files_in(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (file.parent, file.parent.parent)} == {0o700}
    assert store.delete("one", id)
    assert store.get("one", id) is None and files_in(tmp_path) == []


def test_another_tenant_whose_id_looks_the_same_gets_nothing(store_of, clock):
    """The mark in an id is short: the record itself says whose it is."""
    id = new_id("one", clock.now)
    items = Raw(b"[]")
    store = store_of()
    store.keep(Record(id=id, tenant="other", response=items, input=items), lambda: items)
    assert store.get("one", id) is None


@pytest.mark.parametrize("id", ["", "resp_", "resp_../../key", "resp_" + "0" * 32, "resp_" + "0" * 48])
def test_what_is_no_id_is_not_there(store_of, id):
    assert store_of().get("one", id) is None


def test_of_very_many_that_are_deleted_at_once_the_folder_is_listed_twice(store_of, keep, tmp_path, monkeypatch):
    """Each look reads thousands of names, and the supervisor's other threads wait for it."""
    store, looks = store_of(), []
    first = keep(store)
    ids = [first, *(keep(store, previous=first) for _ in range(7))]
    is_looking, go = threading.Event(), threading.Event()
    listed = store._listed

    def wait(folder, conversation):
        found = listed(folder, conversation)
        looks.append(folder)
        is_looking.set()
        assert go.wait(20)
        return found

    monkeypatch.setattr(store, "_listed", wait)
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(store.delete, "one", first)
        assert is_looking.wait(20)
        assert all(store.delete("one", id) for id in ids[1:])
        assert not any(store.get("one", id) for id in ids)
        go.set()
        assert deleting.result(20)
    assert len(looks) == 2 and files_in(tmp_path) == []


def test_a_response_is_deleted_without_a_look_at_other_conversations(store_of, keep, tmp_path, monkeypatch):
    store, read = store_of(), []
    first, others = keep(store), [keep(store) for _ in range(50)]
    second = keep(store, previous=first)

    def noted(text):
        read.append(text)
        return parsed(text)

    monkeypatch.setattr(folder_module, "parsed", noted)
    assert store.delete("one", first)
    assert sorted(read) == [first, second]
    assert store.delete("one", second)
    assert {path.stem for path in files_in(tmp_path)} == set(others)


def test_old_ones_are_gone_at_once_and_removed_later(store_of, keep, clock, tmp_path):
    store = store_of(seconds=60)
    old = keep(store)
    clock.now += 59.5
    new = keep(store)
    assert store.get("one", old) is not None
    clock.now += 0.5
    assert store.get("one", old) is None
    assert len(files_in(tmp_path)) == 2
    store.sweep()
    assert [path.stem for path in files_in(tmp_path)] == [new]


def test_a_clock_that_was_wrong_keeps_nothing_for_ever(store_of, keep, clock, tmp_path):
    store = store_of(seconds=60)
    clock.now += 10 * 365 * 86_400
    wrong = keep(store)
    clock.now -= 10 * 365 * 86_400
    ahead = new_id("one", clock.now + 500)  # by another node's clock
    right = Record(id=ahead, tenant="one", response=Raw(b"{}"), input=Raw(b"[]"))
    store.keep(right, lambda: Raw(b"[]"))
    assert store.get("one", wrong) is None and store.get("one", ahead) == right
    store.sweep()
    assert [path.stem for path in files_in(tmp_path)] == [ahead]


@pytest.mark.parametrize("name", ["abcd1234", "photos"])
@pytest.mark.parametrize("is_link", [True, False])
def test_a_sweep_touches_nothing_but_tenants_folders(store_of, keep, clock, tmp_path, name, is_link):
    store = store_of()
    keep(store)
    other = tmp_path / "photos" if is_link else tmp_path / "responses" / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("x")
    os.utime(other / "cat.jpg", (0, 0))
    if is_link:
        (tmp_path / "responses" / name).symlink_to(other)
    clock.now += 10_000
    assert store.sweep()[1] == []
    assert (other / "cat.jpg").exists()


def test_of_too_many_the_oldest_are_removed(store_of, keep, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WRITES_PER_LOOK", 1)
    store = store_of(of_tenant=10)
    other = keep(store, "two")
    ids = [keep(store) for _ in range(30)]
    left = {path.stem for path in files_in(tmp_path)}
    assert other in left
    left.discard(other)
    assert 9 <= len(left) <= 10 and left == set(ids[-len(left) :])


def test_of_too_many_bytes_the_oldest_are_removed(store_of, keep, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BYTES_PER_LOOK", 1)
    store = store_of(bytes_of_tenant=20_000)
    ids = [keep(store, size=3_000) for _ in range(20)]
    left = files_in(tmp_path)
    assert sum(path.stat().st_size for path in left) <= 20_000
    assert {path.stem for path in left} == set(ids[-len(left) :]) and len(left) >= 4


def test_what_was_seen_is_looked_at_no_more(store_of, keep, monkeypatch):
    store = store_of()
    id = keep(store)
    store.tidy(id)
    monkeypatch.setattr(os, "stat", None)  # which would fail
    store.tidy(id)


def test_a_folder_is_not_listed_at_each_write(store_of, keep, monkeypatch):
    listed = []
    real = folder_module.names_in

    def names(path):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(folder_module, "names_in", names)
    store = store_of()
    for _ in range(200):
        keep(store)
    assert len(listed) == 4


def test_all_tenants_together_are_bounded(store_of, keep, tmp_path):
    store = store_of(in_all=10)
    ids = [keep(store, tenant) for _ in range(10) for tenant in ("one", "two")]
    store.sweep()
    assert {path.stem for path in files_in(tmp_path)} == set(ids[-8:])


def test_of_all_tenants_the_one_that_has_most_loses_first(store_of, keep, tmp_path):
    store = store_of(in_all=10)
    few = [keep(store, "few") for _ in range(3)]
    many = [keep(store, "many") for _ in range(30)]
    removed, failed = store.sweep()
    left = {path.stem for path in files_in(tmp_path)}
    assert left == {*few, *many[-6:]}
    assert (removed["limit"], failed) == (24, [])
    assert store.held.responses == 33  # as it was found
    store.sweep()
    assert store.held.responses == 9


def test_a_sweep_looks_at_each_file_once(store_of, keep, monkeypatch):
    store = store_of()
    keep(store)
    store.sweep()
    monkeypatch.setattr(os, "stat", None)  # which would fail
    store.sweep()


def test_what_a_writer_has_left_is_removed(store_of, keep, clock, tmp_path):
    store = store_of()
    keep(store)
    (folder,) = (tmp_path / "responses").iterdir()
    half = folder / ".new-1"
    half.write_text("{")
    os.utime(half, (clock.now, clock.now))
    store.sweep()
    assert half.exists()
    clock.now += 601
    store.sweep()
    assert not half.exists()


def test_one_that_is_too_large_is_not_kept(store_of, keep, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_RECORD_BYTES", 1000)
    with pytest.raises(RunDirectoryError, match="more than 1000 bytes"):
        keep(store_of(), size=1000)
    assert files_in(tmp_path) == []


def test_one_that_is_damaged_is_an_error(store_of, keep, tmp_path):
    store = store_of()
    id = keep(store)
    files_in(tmp_path)[0].write_text("{")
    with pytest.raises(RunDirectoryError, match="is not a kept response"):
        store.get("one", id)


def test_a_folder_that_was_removed_is_made_again(store_of, keep, tmp_path):
    store = store_of()
    keep(store)
    store.clear()
    assert store.get("one", keep(store)) is not None


def test_the_key_that_turns_it_off(tmp_path):
    assert response_store(tmp_path, RouterSpec()) is not None
    assert response_store(tmp_path, RouterSpec(keep_responses=0)) is None
    assert response_store("", RouterSpec()) is None
