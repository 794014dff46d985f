"""A batch never goes back."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.rundir import RunDirectory
from slurminfer.router.batches.progress import advanced, entered, newest, rank
from slurminfer.router.batches.records import BatchState, Status
from slurminfer.router.batches.store import BatchStore

from .made import make_batch

ids, times = st.none() | st.just("file-a") | st.just("file-b"), st.none() | st.just(5)
states = st.builds(
    BatchState,
    status=st.sampled_from(Status),
    output_file_id=ids,
    error_file_id=ids,
    completed_at=times,
)


@given(st.lists(states, max_size=8))
def test_whatever_is_asked_for_no_step_goes_back_or_forgets(steps):
    state = BatchState()
    for step in steps:
        before, state = state, advanced(state, step)
        assert rank(state.status) >= rank(before.status)
        assert state.revision == before.revision + (state != before)
        for name in ("output_file_id", "error_file_id", "completed_at"):
            assert getattr(before, name) in (None, getattr(state, name))
        if before.has_ended:
            assert state is before


def test_nothing_changes_without_a_change():
    state = advanced(BatchState(), BatchState(completed=1))
    assert state.revision == 1 and advanced(state, state) is state


def test_an_older_file_does_not_count():
    old = advanced(BatchState(), BatchState(status=Status.IN_PROGRESS))
    done = advanced(old, entered(old, Status.COMPLETED, 9.5, output_file_id="file-a"))
    assert newest(done, old) is done and newest(old, done) is done and newest(None, old) is old
    assert done.completed_at == 9


@pytest.fixture
def stored(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    router, worker = BatchStore(run), BatchStore(run)
    return router, worker, make_batch(router)


def test_a_refresh_from_an_older_snapshot_drops_nothing(stored):
    """Another node's filesystem may show a state file as it was some time ago, to the router and to the worker."""
    router, worker, batch = stored
    path = worker.folder(batch.id) / "state.json"
    worker.change(batch.id, lambda state: entered(state, Status.IN_PROGRESS, 1))
    snapshot = path.read_bytes()
    worker.change(batch.id, lambda state: entered(state, Status.FINALIZING, 2, output_file_id="file-a"))
    assert router.state(batch.id).output_file_id == "file-a"
    path.write_bytes(snapshot)
    os.chmod(path, 0o600)
    assert router.state(batch.id).output_file_id == "file-a"
    assert router.state(batch.id).status is Status.FINALIZING
    after = worker.change(batch.id, lambda state: msgspec.structs.replace(state, completed=5))
    assert (after.status, after.output_file_id, after.completed) == (Status.FINALIZING, "file-a", 5)
    path.unlink()
    assert router.state(batch.id).output_file_id == "file-a"
