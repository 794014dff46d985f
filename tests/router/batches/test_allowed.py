"""How many batches and files one tenant may have."""

import itertools
import os
from dataclasses import replace

import pytest

from slurminfer.core.rundir import RunDirectory
from slurminfer.router.batches import store as store_module
from slurminfer.router.batches.errors import NotAllowedError, NotThereError
from slurminfer.router.batches.ids import FILE, new_id
from slurminfer.router.batches.limits import USUAL
from slurminfer.router.batches.records import BatchState, FileRecord, Status
from slurminfer.router.batches.store import BatchStore

from .made import make_batch, make_file

NOW = 1000.0


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    return run


def opened(run, **allowed):
    return BatchStore(run, lambda: NOW, replace(USUAL, **allowed))


def end(store, batch):
    store.change(batch.id, lambda state: BatchState(status=Status.COMPLETED))
    store.clear(batch.id)


def upload(store, size, tenant="owner"):
    draft = store.files.draft()
    draft.write(b"a" * size)
    record = FileRecord(
        id=new_id(FILE, tenant, NOW), tenant=tenant, filename="a", purpose="batch", bytes=size, created_at=int(NOW)
    )
    try:
        store.files.keep(draft, record)
    finally:
        draft.discard()
    return record


def test_so_many_batches_of_a_tenant_are_under_way(run):
    store = opened(run, batches=2)
    first, _ = make_batch(store), make_batch(store)
    with pytest.raises(NotAllowedError, match="2 batches of this key are under way, and 2 is the most") as refused:
        make_batch(store)
    assert (refused.value.status, refused.value.code) == (429, "batch_limit_exceeded")
    make_batch(store, "course")
    end(store, first)
    make_batch(store)


def test_the_newest_batches_are_kept(run, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_BATCHES_KEPT", 3)
    store = BatchStore(run, itertools.count(NOW).__next__, replace(USUAL, batches=2))
    others, running = make_batch(store, "course"), make_batch(store)
    made = [make_batch(store)]
    for _ in range(4):
        end(store, made[-1])
        made.append(make_batch(store))
    listed = [batch.id for batch in store.listed("owner", 100, None)[0]]
    assert listed == sorted([running.id, made[-2].id, made[-1].id], reverse=True)
    assert store.get("course", others.id)
    with pytest.raises(NotThereError):
        store.get("owner", made[0].id)


def test_so_many_files_of_a_tenant(run):
    store = opened(run, files=2)
    first = upload(store, 1)
    make_file(store, purpose="batch_output")
    with pytest.raises(NotAllowedError, match="2 files of this key, and 2 is the most") as refused:
        upload(store, 1)
    assert (refused.value.status, refused.value.code) == (400, "file_limit_exceeded")
    upload(store, 1, "course")
    store.files.delete("owner", first.id)
    upload(store, 1)
    assert make_file(store, purpose="batch_output"), "what a batch has made is kept in any case"


def test_so_many_bytes_of_a_tenant(run):
    store = opened(run, bytes=100)
    first = upload(store, 60)
    assert opened(run, bytes=100).files.room("owner") == 40
    with pytest.raises(NotAllowedError, match="40 bytes are left") as refused:
        upload(store, 41)
    assert refused.value.code == "storage_limit_exceeded"
    assert not list(run.files_path.glob(".upload-*"))
    upload(store, 40)
    store.files.delete("owner", first.id)
    upload(store, 60)


def test_the_deleted_input_of_a_batch_under_way_counts(run):
    store = opened(run, bytes=100)
    input = upload(store, 60)
    batch = store.create("owner", "/v1/completions", input.id, None, None)
    assert store.files.room("owner") == 40
    store.files.delete("owner", input.id)
    assert store.files.room("owner") == 40 and store.files.room("course") == 100
    end(store, batch)
    assert store.files.room("owner") == 100


def test_what_a_killed_router_has_left_of_a_batch_is_removed(run):
    store = opened(run)
    make_batch(store)
    for name, age_s in ((".new-old", 25 * 3600), (".new-young", 3600)):
        (run.openai_batches_path / name).mkdir()
        os.utime(run.openai_batches_path / name, (NOW - age_s, NOW - age_s))
    store.sweep()
    assert sorted(path.name[:8] for path in run.openai_batches_path.iterdir()) == [".new-you", "batch_00"]
