"""Files and batches in the run directory."""

import os
import time

import pytest

from slurminfer.core import files
from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.batches.errors import NotAllowedError, NotThereError
from slurminfer.router.batches.ids import BATCH, FILE, derived_id, is_id, new_id
from slurminfer.router.batches.limits import Allowed
from slurminfer.router.batches.records import BatchState, FileRecord, Status
from slurminfer.router.batches.store import BatchStore

from ...support.clock import Clock
from .made import make_batch, make_file


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    run = RunDirectory(tmp_path / "run")
    run.create()
    return BatchStore(run, clock)


def test_what_is_written_is_this_users_alone(store, tmp_path):
    batch = make_batch(store)
    store.change(batch.id, lambda state: BatchState(status=Status.IN_PROGRESS))
    for path in [*(tmp_path / "run/files").rglob("*"), *(tmp_path / "run/openai-batches").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    "id", ["", "..", "../../key", "file-../../key", "batch_" + "0" * 32 + "/..", "batch_\n", "x" * 10**5]
)
def test_no_text_but_an_id_becomes_a_path(store, id):
    for ask in (
        lambda: store.files.get("owner", id),
        lambda: store.files.delete("owner", id),
        lambda: store.get("owner", id),
    ):
        with pytest.raises(NotThereError):
            ask()
    with pytest.raises(ValueError):
        store.folder(id)


def test_files_are_listed_in_order_and_by_pages(store, clock):
    made = []
    for _ in range(5):
        clock.now += 1
        made.append(make_file(store, now=clock.now).id)
    make_file(store, "other", now=clock.now)

    def ids(**options):
        found, more = store.files.listed(
            "owner", **{"limit": 10, "after": None, "newest_first": True, "purpose": None, **options}
        )
        return [record.id for record in found], more

    assert ids() == (made[::-1], False)
    assert ids(newest_first=False, limit=2) == (made[:2], True)
    assert ids(newest_first=False, limit=2, after=made[1]) == (made[2:4], True)
    assert ids(newest_first=False, limit=2, after=made[3]) == (made[4:], False)
    assert ids(purpose="batch_output") == ([], False)
    store.files.delete("owner", made[2])
    assert ids(limit=2, after=made[2]) == (made[1::-1], False), "the cursor need not be there any more"


def test_a_page_of_many_batches_reads_the_records_of_that_page_only(store, monkeypatch):
    batch = make_batch(store)
    text = files.encode_json(batch)
    for number in range(2_000):
        id = new_id(BATCH, ("owner", "course")[number % 2], 2000.0 + number)
        folder = store.folder(id)
        folder.mkdir()
        (folder / "request.json").write_text(text.replace(batch.id, id))
        (folder / "request.json").chmod(0o600)
    read, request = [], store.request

    def noted(id):
        read.append(id)
        return request(id)

    monkeypatch.setattr(store, "request", noted)
    found, more = store.listed("owner", 20, None)
    assert (len(found), more, len(read)) == (20, True, 21)
    assert [record.id for record in found] == sorted((record.id for record in found), reverse=True)


def test_expired_files_are_not_there_and_then_removed(store, clock, tmp_path):
    kept, gone = make_file(store), make_file(store, expires_at=1500)
    assert store.files.get("owner", gone.id) == gone
    clock.now = 1500.0
    with pytest.raises(NotThereError):
        store.files.get("owner", gone.id)
    store.files.sweep()
    assert os.listdir(tmp_path / "run/files") == [kept.id]


def test_what_a_killed_writer_has_left_is_removed_after_a_day(store, clock, tmp_path):
    draft = store.files.draft()
    draft.write(b"half")
    clock.now = time.time()
    store.files.sweep()
    assert len(os.listdir(tmp_path / "run/files")) == 1, "it may still be written"
    clock.now += 25 * 3600
    store.files.sweep()
    assert os.listdir(tmp_path / "run/files") == []
    draft.discard()


def test_a_file_that_is_made_twice_is_there_once(store):
    id = derived_id(FILE, "owner", 5.0, "batch output")
    for content in (b"first", b"again"):
        draft = store.files.draft()
        draft.write(content)
        draft.keep(FileRecord(id=id, tenant="owner", filename="a", purpose="batch_output", bytes=5, created_at=5))
    with store.files.open(store.files.get("owner", id)) as file:
        assert file.read() == b"first"
    assert is_id(FILE, id)


def test_an_output_cannot_be_the_input_of_a_batch(store):
    with pytest.raises(NotAllowedError, match="purpose is 'batch_output'"):
        store.create("owner", "/v1/completions", make_file(store, purpose="batch_output").id, None, None)


def test_another_tenants_file_is_not_there(store):
    file = make_file(store, "course")
    with pytest.raises(NotThereError):
        store.create("owner", "/v1/completions", file.id, None, None)
    assert store.ids() == []


@pytest.mark.parametrize("text", ["{", "", '{"id": "file-1"}', "[" * 100_000, "\0" * 1000, "other"])
def test_a_damaged_record_hides_no_other_file(store, tmp_path, clock, caplog, text):
    kept, damaged, _ = make_file(store), make_file(store), make_file(store, expires_at=1500)
    path = store.files.content_path(damaged.id).with_name("record.json")
    if text == "other":  # the record of another file
        text = store.files.content_path(kept.id).with_name("record.json").read_text()
    path.write_text(text)
    fresh = BatchStore(RunDirectory(tmp_path / "run"), clock)
    clock.now = 1500.0
    for _ in range(2):
        fresh.files.sweep()
        assert sorted(os.listdir(tmp_path / "run/files")) == sorted([kept.id, damaged.id])
        assert fresh.files.listed("owner", limit=9, after=None, newest_first=True, purpose=None) == ([kept], False)
        assert fresh.files.room("owner") > 0
    assert [line for line in caplog.messages if str(path) in line] == [caplog.messages[0]]


@pytest.mark.parametrize("name", ["request.json", "state.json"])
def test_a_damaged_batch_hides_no_other_and_hinders_none(store, tmp_path, clock, name):
    kept, damaged = make_batch(store), make_batch(store)
    store.change(damaged.id, lambda state: BatchState(status=Status.IN_PROGRESS))
    (store.folder(damaged.id) / name).write_text("{")
    fresh = BatchStore(RunDirectory(tmp_path / "run"), clock, Allowed(batches=2, files=9, bytes=2**20))
    assert kept in fresh.listed("owner", 20, None)[0]
    if name == "state.json":  # it will never end by itself
        assert make_batch(fresh) in fresh.listed("owner", 20, None)[0]


def test_a_damaged_record_is_an_error_that_names_the_file(store):
    file = make_file(store)
    store.files.content_path(file.id).with_name("record.json").write_text("{")
    fresh = BatchStore(RunDirectory(store.files.content_path(file.id).parents[2]))
    with pytest.raises(RunDirectoryError, match=r"record\.json"):
        fresh.files.get("owner", file.id)
