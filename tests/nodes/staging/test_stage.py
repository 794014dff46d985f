"""What an engine is told to read, and what is said where nothing can be staged."""

import os

import pytest

from slurminfer.core.errors import EngineError
from slurminfer.core.spec.model import ModelSpec, SpeculativeSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.staging import store
from slurminfer.nodes.staging.stage import Weights, staged


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No site profile, and no scratch but what a test names."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    for name in ("TMPDIR", "SLURM_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def weights(model, draft=None) -> Weights:
    guesses = SpeculativeSpec(method="draft", draft_model=str(draft)) if draft else None
    return Weights(model=ModelSpec(path=str(model)), speculative=guesses)


def always(_seconds) -> bool:
    return True


def test_nothing_is_staged_that_is_not_asked_for(model):
    before = weights(model)
    with staged(PoolSpec(), before, always) as found:
        assert found is before


def test_model_and_draft_are_read_from_the_disk_and_keep_the_name(model, disk, capsys):
    draft = model.parent / "draft"
    draft.mkdir()
    (draft / "config.json").write_text("draft")
    with staged(PoolSpec(stage_weights=str(disk)), weights(model, draft), always) as found:
        assert found.model.path.startswith(str(disk)) and os.path.isdir(found.model.path)
        assert found.model.served_name == "small"
        assert found.speculative is not None
        read = found.speculative.draft_model or ""
        assert read.startswith(str(disk)) and read.endswith(str(draft)) and os.path.isdir(read)
        assert found.seconds is not None and found.remark == ""
    assert list((disk / f"slurminfer-{os.geteuid()}" / "weights").iterdir()) == []
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"copies 0.0 GB of {model} to {disk}")
    assert said[1].startswith(f"weights of {model} staged to {disk}") and " (copied, " in said[1] and len(said) == 4


def test_a_full_disk_is_remarked_and_the_weights_are_read_where_they_are(model, disk, monkeypatch):
    monkeypatch.setattr(store, "_SPARE", 1 << 60)
    before = weights(model)
    with staged(PoolSpec(stage_weights=str(disk)), before, always) as found:
        assert found.model.path == str(model) and found.seconds is not None
        assert found.remark.startswith(f"weights are not staged, but read from {model}: {disk}/slurminfer-")
        assert "GB are needed" in found.remark


def test_an_error_of_the_disk_is_remarked(model, disk, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "copy", fail)
    with staged(PoolSpec(stage_weights=str(disk)), weights(model), always) as found:
        assert found.remark == f"weights are not staged, but read from {model}: Input/output error"


def test_a_folder_that_is_not_there_is_remarked(model, tmp_path):
    with staged(PoolSpec(stage_weights=str(tmp_path / "none")), weights(model), always) as found:
        assert found.remark == f"weights are not staged, but read from {model}: {tmp_path}/none is no folder here"


def test_no_scratch_of_the_node_is_an_error(model):
    expected = r"stage_weights = true: no scratch was found .*; name a folder of the nodes' own disks, such as"
    with pytest.raises(EngineError, match=expected), staged(PoolSpec(stage_weights=True), weights(model), always):
        pass


def test_the_nodes_scratch(model, disk, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(disk))
    with staged(PoolSpec(stage_weights=True), weights(model), always) as found:
        assert found.model.path.startswith(str(disk))


def test_a_worker_that_is_to_end_stops_to_copy(model, disk):
    with staged(PoolSpec(stage_weights=str(disk)), weights(model), lambda _seconds: False) as found:
        assert found.model.path == str(model) and found.remark == ""
    assert list((disk / f"slurminfer-{os.geteuid()}" / "weights").iterdir()) == []


def test_copying_that_takes_too_long_is_given_up(model, disk, monkeypatch):
    pool = PoolSpec(stage_weights=str(disk), start_timeout="00:00:00")
    with staged(pool, weights(model), always) as found:
        assert found.remark.endswith(f"read from {model}: not done within start_timeout = '00:00:00'")


def test_an_error_of_the_engine_comes_through_and_the_copy_is_removed(model, disk):
    with pytest.raises(EngineError, match="boom"), staged(PoolSpec(stage_weights=str(disk)), weights(model), always):
        raise EngineError("boom")
    assert list((disk / f"slurminfer-{os.geteuid()}" / "weights").iterdir()) == []
