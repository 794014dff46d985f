"""Where on a node there is room, and whether the folder there is safe."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from slurminfer.core.errors import EngineError, StagingError
from slurminfer.core.site.store import write_site
from slurminfer.nodes.doctor.mounts import Mount
from slurminfer.nodes.staging import scratch
from slurminfer.nodes.staging.scratch import given_folder, is_of_job, node_scratch, own_folder

from ...support import sites

IN_JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_PARTITION": "gpu", "SLURMD_NODENAME": "n7"}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders, on filesystems that their names tell, and no site profile."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    kinds = {"shared": "nfs4", "memory": "tmpfs", "local": "xfs", "roomy": "xfs"}
    monkeypatch.setattr(scratch, "mount_of", lambda path: Mount("/", kinds.get(path.name.partition("-")[0], "xfs")))
    found = {name: tmp_path / name for name in (*kinds, "local-4711")}
    for folder in found.values():
        folder.mkdir()
    return found


def know(*folders) -> None:
    """Write what the doctor has seen in the partition."""
    write_site(sites.site(sites.partition("gpu", reports=(sites.report(folders=folders),))))


def test_variables_in_a_folders_name_are_those_of_the_node(places):
    local = places["local"]
    assert given_folder(str(local)) == local
    assert given_folder("$ROOT/local", {"ROOT": str(local.parent)}) == local
    assert given_folder("${ROOT}/local", {"ROOT": str(local.parent)}) == local
    assert given_folder(str(places["memory"])) == places["memory"], "who names it wants it"


@pytest.mark.parametrize("given", ["$NOT_SET/x", "$RELATIVE"])
def test_a_name_that_cannot_be_is_an_error(given):
    with pytest.raises(
        EngineError, match=r"stage_weights = .* on n7: expected variables that are set, and an absolute"
    ):
        given_folder(given, {"RELATIVE": "scratch", **IN_JOB})


def test_a_folder_that_is_missing_or_shared_is_not_used(places, tmp_path):
    with pytest.raises(StagingError, match=r"/missing is no folder here"):
        given_folder(str(tmp_path / "missing"))
    with pytest.raises(StagingError, match=r"/shared is on nfs4, which other machines see too"):
        given_folder(str(places["shared"]))


def test_without_the_doctor_it_is_a_variable_of_the_job(places):
    local, of_job = str(places["local"]), str(places["local-4711"])
    assert node_scratch({**IN_JOB, "TMPDIR": local}) == places["local"]
    assert node_scratch({**IN_JOB, "TMPDIR": local, "SLURM_TMPDIR": of_job}) == places["local"], "it can be shared"
    assert node_scratch({**IN_JOB, "SLURM_TMPDIR": of_job}) == places["local-4711"]
    with pytest.raises(StagingError, match="no scratch"):
        node_scratch({**IN_JOB, "SLURM_TMPDIR": of_job}, outlives_job=True)


def test_why_there_is_none(places):
    with pytest.raises(
        StagingError, match=r"on n7: 'slurminfer doctor' has seen none, and neither SLURM_TMPDIR nor TM"
    ):
        node_scratch(IN_JOB)
    environ = {**IN_JOB, "SLURM_TMPDIR": str(places["shared"]), "TMPDIR": str(places["memory"])}
    with pytest.raises(StagingError, match=r"SLURM_TMPDIR = \S+ is on nfs4, .*; TMPDIR = \S+ is main memory"):
        node_scratch(environ)


def test_what_the_doctor_has_seen_in_the_partition_counts_first(places, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(places["roomy"]))
    know(
        sites.folder("SCRATCH", "/seen/shared", is_shared=True),
        sites.folder("LOCAL_SCRATCH", "/seen/by/another/job", free=10),
        sites.folder("temporary files", "/tmp", free=20),
        sites.folder("home", "/home/u", free=30),
    )
    environ = {**IN_JOB, "LOCAL_SCRATCH": str(places["local"]), "SCRATCH": str(places["shared"])}
    assert node_scratch(environ) == places["roomy"]
    know(sites.folder("LOCAL_SCRATCH", "/seen/by/another/job"), sites.folder("temporary files", "/tmp", is_memory=True))
    assert node_scratch({**environ, "TMPDIR": str(places["roomy"])}) == places["local"]
    assert node_scratch({**IN_JOB, "TMPDIR": str(places["roomy"])}) == places["roomy"], "the variable is not set here"


def test_a_private_tmp_of_the_job_is_known_by_what_is_mounted(monkeypatch):
    monkeypatch.setattr(scratch, "mount_of", lambda path: Mount("/tmp", "xfs", root="/jobs/4711/.4711"))
    assert is_of_job(Path("/tmp"), IN_JOB) and not is_of_job(Path("/tmp"), {})
    monkeypatch.setattr(scratch, "mount_of", lambda path: Mount("/tmp", "xfs", root="/jobs/47112"))
    assert not is_of_job(Path("/tmp"), IN_JOB)


def test_the_users_own_folder(tmp_path):
    path = own_folder(tmp_path, "weights")
    assert path == tmp_path / f"slurminfer-{os.geteuid()}" / "weights" == own_folder(tmp_path, "weights")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path, path.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("attack", ["link", "open", "parent"])
def test_a_folder_that_others_could_have_made_is_refused(tmp_path, attack):
    path = tmp_path / f"slurminfer-{os.geteuid()}"
    if attack == "link":
        (tmp_path / "elsewhere").mkdir(0o700)
        path.symlink_to(tmp_path / "elsewhere")
    elif attack == "open":
        path.mkdir()
        path.chmod(0o770)
    else:
        tmp_path.chmod(0o777)
    with pytest.raises(StagingError, match="is not used: "):
        own_folder(tmp_path, "weights")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_for_them_or_an_administrator_to_remove(tmp_path):
    tmp_path.chmod(0o1777)
    path = tmp_path / f"slurminfer-{os.geteuid()}"
    path.mkdir(0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(StagingError, match="have uid 65534 or an administrator remove it"):
        own_folder(tmp_path, "weights")
