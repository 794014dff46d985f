"""Filesystems and quotas, as the kernel and the filesystems' commands tell them."""

from pathlib import Path

import pytest

from slurminfer.nodes.doctor.folders import folder, folders
from slurminfer.nodes.doctor.mounts import mount_of
from slurminfer.nodes.doctor.quota import UNKNOWN, parse_lfs, parse_quota

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw
41 22 0:40 / /home rw,relatime shared:9 - nfs4 server:/export/home rw,vers=4.2
42 22 0:41 / /scratch/my\\040data rw,noexec,relatime - lustre 10.0.0.1@o2ib:/fs rw
43 22 0:42 / /tmp rw - xfs /dev/sdb rw
44 43 0:43 / /tmp rw - tmpfs tmpfs rw
"""
QUOTA = """\
Disk quotas for user u (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
server:/export/home 19000000* 18000000 20000000 1767225600 120000 0 0 0
"""
LFS = "     /scratch 5242880  10485760 15728640       -   10000       0       0       -\n"


@pytest.mark.parametrize(
    ("path", "kind", "is_shared", "is_memory"),
    [("/home/u/.cache", "nfs4", True, False), ("/homes", "ext4", False, False), ("/dev/shm/x", "tmpfs", False, True),
     ("/scratch/my data/u", "lustre", True, False), ("/tmp", "tmpfs", False, True)],
)  # fmt: skip
def test_the_filesystem_of_a_path(tmp_path, path, kind, is_shared, is_memory):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    found = mount_of(Path(path), tmp_path / "mountinfo")
    assert (found.kind, found.is_shared, found.is_memory) == (kind, is_shared, is_memory)


def test_a_filesystem_may_forbid_to_execute(tmp_path):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert not mount_of(Path("/scratch/my data"), tmp_path / "mountinfo").may_execute
    assert mount_of(Path("/home"), tmp_path / "mountinfo").may_execute


def test_quotas_are_the_hard_limit_else_the_soft_one():
    assert parse_quota(QUOTA, "server:/export/home") == (20_000_000 * 1024, 19_000_000 * 1024)
    assert parse_lfs(LFS) == (15_728_640 * 1024, 5_242_880 * 1024)
    assert parse_lfs("/fs 100 200 0 - 1 0 0 -") == (200 * 1024, 100 * 1024)


@pytest.mark.parametrize("text", ["", "Disk quotas for user u (uid 1000): none\n", "lfs: no such filesystem\n"])
def test_without_a_quota_there_is_no_limit(text):
    assert parse_quota(text, "server:/export/home") == parse_lfs(text) == UNKNOWN


def test_a_folder_that_is_not_there_yet_is_on_the_filesystem_above(tmp_path):
    found = folder(str(tmp_path / "not/yet"), "HF_HOME", measure=False)
    assert found.is_writable and found.free is not None and found.write_bytes_per_s is None


def test_caches_are_where_their_variables_say_and_each_path_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "ours"))
    environ = {"HF_HOME": str(tmp_path / "hf"), "TMPDIR": "/tmp", "TRITON_CACHE_DIR": str(tmp_path / "hf")}
    found = {one.path: one.purpose for one in folders(environ, measure=False)}
    assert found[str(tmp_path / "hf")] == "HF_HOME, TRITON_CACHE_DIR"
    assert found[str(tmp_path / "ours")] == "SLURMINFER_HOME"
    assert found[str(tmp_path / ".cache/torch")] == "TORCH_HOME"


def test_scratch_is_measured(tmp_path):
    assert (folder(str(tmp_path), "temporary files", measure=True).write_bytes_per_s or 0) > 0
    assert list(tmp_path.iterdir()) == []
