"""Caches of compiled code: which are moved to the node's disk, and when none is."""

import os
import tempfile
from pathlib import Path

import pytest

from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.doctor.mounts import Mount
from slurminfer.nodes.staging import caches, scratch
from slurminfer.nodes.staging.caches import node_caches

ALL = {
    "CUDA_CACHE_PATH", "DG_JIT_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "SGLANG_CACHE_DIR", "SGLANG_DG_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "TVM_FFI_CACHE_DIR", "VLLM_CACHE_ROOT",
}  # fmt: skip


@pytest.fixture
def environ(tmp_path, monkeypatch) -> dict[str, str]:
    """A job on a node whose home directory is shared, and whose TMPDIR is not."""
    home, local = tmp_path / "home", tmp_path / "local"
    home.mkdir()
    local.mkdir()

    def mount_of(path: Path) -> Mount:
        return Mount("/", "nfs4" if path.is_relative_to(home) else "xfs")

    monkeypatch.setattr(caches, "mount_of", mount_of)
    monkeypatch.setattr(scratch, "mount_of", mount_of)
    monkeypatch.setattr(tempfile, "tempdir", str(local))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SLURMINFER_HOME", str(home / "ours"))
    return {"TMPDIR": str(local), "SLURM_JOB_ID": "4711"}


def test_those_on_a_shared_home_are_moved(environ, tmp_path):
    found = node_caches(PoolSpec(engine="vllm"), environ)
    assert found is not None and set(found.env) == ALL
    assert found.folder.parent == tmp_path / "local" / f"slurminfer-{os.geteuid()}" / "caches"
    assert all(Path(path).is_dir() and Path(path).parent == found.folder for path in found.env.values())
    assert node_caches(PoolSpec(engine="vllm"), environ) == found
    others = [PoolSpec(engine="vllm", python="/env/bin/python"), PoolSpec(engine="vllm", container="docker://vllm")]
    folders = {moved.folder for pool in others if (moved := node_caches(pool, environ))}
    assert len(folders | {found.folder}) == 3


def test_a_shared_tmpdir_moves_inductors_too(environ, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "home"))
    found = node_caches(PoolSpec(), {**environ, "SLURM_TMPDIR": str(tmp_path / "local")})
    assert found is not None and set(found.env) == {*ALL, "TORCHINDUCTOR_CACHE_DIR"}


def test_what_the_user_has_placed_stays_there(environ, tmp_path):
    pool = PoolSpec(env={"TRITON_CACHE_DIR": "/mine", "XDG_CACHE_HOME": str(tmp_path / "local")})
    found = node_caches(pool, {**environ, "CUDA_CACHE_PATH": "/mine"})
    placed = {"TRITON_CACHE_DIR", "CUDA_CACHE_PATH", "VLLM_CACHE_ROOT", "TORCH_EXTENSIONS_DIR"}
    assert found is not None and set(found.env) == ALL - placed


def test_kernels_that_flashinfer_has_downloaded_are_still_found(environ, tmp_path):
    cubins = tmp_path / "home/.cache/flashinfer/cubins"
    cubins.mkdir(parents=True)
    found = node_caches(PoolSpec(), environ)
    assert found is not None and found.env["FLASHINFER_CUBIN_DIR"] == str(cubins)


@pytest.mark.parametrize("what", ["off", "local home", "scratch of the job", "no scratch"])
def test_all_stay_where_they_are(environ, monkeypatch, tmp_path, what):
    if what == "local home":
        monkeypatch.setattr(caches, "mount_of", lambda path: Mount("/", "xfs"))
    if what == "scratch of the job":
        environ["TMPDIR"] = str(tmp_path / "local" / "4711")
        (tmp_path / "local" / "4711").mkdir()
    if what == "no scratch":
        del environ["TMPDIR"]
    assert node_caches(PoolSpec(local_caches=what != "off"), environ) is None
