"""The run directory under the conditions of a shared filesystem: torn, stale, contended, full."""

import errno
import multiprocessing
import os
import shutil
import stat
import subprocess

import pytest

from slurminfer.core import files
from slurminfer.core.errors import RunDirectoryError, RunNotFoundError
from slurminfer.core.records import (
    DeploymentRecord,
    NodeRecord,
    OrderRecord,
    RendezvousRecord,
    WorkerRecord,
    WorkerState,
)
from slurminfer.core.rundir import RunDirectory, known_names
from slurminfer.core.spec.files import parse_spec
from slurminfer.core.trust import open_trusted

NODE = NodeRecord(node_rank=1, host="n2", pid=1, rendezvous="n1:1", updated_at=0.0)


def worker(**changes) -> WorkerRecord:
    known = {
        "id": "cpu-0", "pool": "cpu", "engine": "native", "model": "demo", "state": WorkerState.READY, "host": "n1",
        "job": "7", "epoch": 0, "pid": 1, "updated_at": 0.0,
    }  # fmt: skip
    return WorkerRecord(**{**known, **changes})


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    directory = RunDirectory.named("demo")
    directory.create()
    return directory


def test_records_come_back_as_written(run):
    run.write_worker(worker())
    run.write_worker(worker(id="cpu-1", load_s=1.5))
    assert run.read_workers() == [worker(), worker(id="cpu-1", load_s=1.5)]


def test_the_key_is_private_and_kept(run):
    key = run.key()
    run.create()
    assert run.key() == key
    assert len(key) >= 32
    assert stat.S_IMODE(run.key_path.stat().st_mode) == 0o600


def test_all_of_it_is_closed_to_others_and_a_loose_one_is_closed(run):
    run.write_worker(worker())
    run.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0))
    for path in (run.path, run.workers_path, run.key_path):
        path.chmod(0o777 if path.is_dir() else 0o666)
    run.create()
    for path in (run.path, *run.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_home_is_closed_where_it_is_ours_alone_and_left_where_the_user_chose_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SLURMINFER_HOME", raising=False)
    own, chosen = tmp_path / ".slurminfer", tmp_path / "scratch"
    for folder in (own, chosen):
        folder.mkdir()
        folder.chmod(0o755)
    RunDirectory.named("demo").create()
    monkeypatch.setenv("SLURMINFER_HOME", str(chosen))
    RunDirectory.named("demo").create()
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (own, chosen)] == [0o700, 0o755]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_run_directory_of_another_user_is_refused(run):
    run.path.chmod(0o777)
    os.chown(run.path, 4242, 4242)
    with pytest.raises(RunDirectoryError, match="owned by uid 4242"):
        run.create()


def test_an_earlier_key_goes_on_working(run):
    files.write_atomic(run.key_path, "-Zk_2 \n")
    run.create()
    assert run.key() == "-Zk_2"


def test_of_two_routers_that_make_the_key_for_metrics_at_once_both_have_the_same(run, monkeypatch):
    first = run.metrics_key()
    reads = iter(["", *[files.read_private(run.metrics_key_path)] * 2])  # as if it had not been there yet
    monkeypatch.setattr(files, "read_private", lambda path: next(reads))
    assert run.metrics_key() == first


def test_a_key_file_without_a_key_gets_one(run):
    files.write_atomic(run.metrics_key_path, "\n")
    assert run.metrics_key() and run.metrics_key() == run.metrics_key()


def test_one_bad_record_is_the_trouble_of_one_worker(run):
    run.write_worker(worker())
    run.write_worker(worker(id="cpu-1"))
    (run.workers_path / "cpu-1.json").rename(run.workers_path / "cpu-2.json")
    (run.workers_path / "cpu-3.json").write_text("[" * 100_000)
    os.mkfifo(run.workers_path / "cpu-4.json")
    (run.workers_path / "cpu-5.json").write_text("null")
    (run.workers_path / "readme.txt").write_text("hello")
    seen = run.look_at_workers()
    assert seen.pop("cpu-0") == worker()
    assert {name: str(error).partition(f"{name}.json ")[2][:22] for name, error in seen.items()} == {
        "cpu-2": "is the record of anoth",
        "cpu-3": "is nested too deeply",
        "cpu-4": "is no regular file",
        "cpu-5": "is not a WorkerRecord:",
    }


def test_without_the_folder_there_are_no_workers(run):
    run.workers_path.rmdir()
    assert run.look_at_workers() == {}
    assert run.read_workers() == []


def test_only_one_of_many_claims_wins(run):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        won = pool.map(_claim, [run] * 32)
    assert sum(won) == 1


def _claim(run: RunDirectory) -> bool:
    return run.claims.take(DeploymentRecord(launcher="local", claimed_by=f"{os.getpid()} on n1", claimed_at=0.0))


def test_readers_never_see_half_a_file(run):
    writer = multiprocessing.get_context("fork").Process(target=_rewrite, args=(run,))
    writer.start()
    seen = set()
    while writer.is_alive():
        seen |= {len(record.reason) for record in run.read_workers()}
    writer.join()
    assert seen <= {1, 100_000}


def _rewrite(run: RunDirectory) -> None:
    for turn in range(100):
        run.write_worker(worker(reason="x" * (1 if turn % 2 else 100_000)))


def test_a_file_of_another_version_is_refused_by_version(run):
    run.write_worker(worker(version=99))
    with pytest.raises(RunDirectoryError, match="version 99"):
        run.read_workers()


def test_a_corrupt_file_is_named(run):
    (run.workers_path / "cpu-0.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"cpu-0\.json is not JSON"):
        run.read_workers()


def test_a_stale_handle_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("fresh")
    failures = iter([OSError(errno.ESTALE, "Stale file handle")] * 2)

    def sometimes_stale(path):
        for failure in failures:
            raise failure
        return open_trusted(path)

    monkeypatch.setattr(files, "open_trusted", sometimes_stale)
    assert files.read_private(path) == "fresh"


def test_clearing_keeps_spec_key_and_logs(run):
    run.write_spec(parse_spec('name = "demo"\n[model]\npath = "demo"\n[[pool]]'))
    run.write_worker(worker())
    run.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on n1", claimed_at=0.0))
    key = run.key()
    run.clear()
    assert run.read_workers() == []
    assert run.read_deployment() is None
    assert run.key() == key
    assert run.spec_path.exists()


def test_an_unknown_name_lists_the_known_ones(run):
    run.write_spec(parse_spec('name = "demo"\n[model]\npath = "demo"\n[[pool]]'))
    with pytest.raises(RunNotFoundError, match="there are: demo"):
        RunDirectory.existing("dmeo")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        path = tmp_path / "record.json"
        files.write_atomic(path, "old")
        with pytest.raises(RunDirectoryError, match=r"record\.json: No space left on device"):
            files.write_atomic(path, "x" * 200_000)
        assert path.read_text() == "old"
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["record.json"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_serial_is_never_given_twice(run):
    assert run.read_serials() == {}
    run.take_serials(["cpu-0", "cpu-1", "gpu-a-0"])
    run.take_serials(["cpu-0"])  # an earlier one does not turn the count back
    assert run.read_serials() == {"cpu": 2, "gpu-a": 1}
    run.clear()
    assert run.read_serials() == {"cpu": 2, "gpu-a": 1}, "stopping keeps it"


@pytest.mark.parametrize("text", ['{"cpu": -1}', '{"cpu": "1"}', "[]", "null", "0"])
def test_serials_that_no_slurminfer_wrote_are_refused_by_path(run, text):
    (run.path / "serials.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"serials\.json is not a table of serials"):
        run.read_serials()


def test_what_cannot_be_removed_is_named_and_the_claim_stays(run, monkeypatch):
    run.claims.take(DeploymentRecord(launcher="local", claimed_by="1 on here", claimed_at=0.0))
    (run.workers_path / "cpu-0.json").mkdir()

    def refuse(path):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RunDirectoryError, match=r"cannot remove .*cpu-0\.json: "):
        run.clear()
    assert run.read_deployment() is not None


def test_clearing_without_the_folder_of_records_is_no_error(run):
    run.workers_path.rmdir()
    run.clear()


def test_a_name_that_no_filesystem_can_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    (tmp_path / "runs").mkdir()
    with pytest.raises(RunDirectoryError, match="File name too long"):
        RunDirectory.existing("x" * 300)


def test_deployments_that_cannot_be_listed_are_an_error_with_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(RunDirectoryError, match=r"cannot read .*runs: Not a directory"):
        known_names()


def test_a_folder_in_the_place_of_a_record_keeps_nobody_from_clearing(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    places = [run.workers_path / "cpu-0.json", run.rendezvous_path / "x", run.router_path, run.deployment_path]
    for place in places:
        place.mkdir()
        (place / "inside").touch()
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (run.workers_path / "cpu-1.json").symlink_to(outside)
    run.clear()
    assert not any(place.exists() for place in places)
    assert (outside / "kept").exists()


def test_of_a_worker_that_is_forgotten_nothing_stays_and_those_with_names_alike_keep_theirs(run):
    ids = ["a-0", "a-00", "a-0.b-1", "a-0-0", "b-1"]
    for worker_id in ids:
        run.write_worker(worker(id=worker_id))
        run.write_order(worker_id, OrderRecord(drain=True))
        for epoch in (0, 12):
            run.worker_identity_path(worker_id, epoch).touch()
            run.write_rendezvous(worker_id, epoch, RendezvousRecord(address="n1:1", secret="s"))
            run.write_node(worker_id, epoch, NODE)
    before = {path for path in run.path.rglob("*") if path.is_file()}
    run.forget_workers({"a-0"})
    gone = before - {path for path in run.path.rglob("*") if path.is_file()}
    assert {path.name for path in gone} == {
        "a-0.json", "a-0.0.pem", "a-0.12.pem", "a-0.0", "a-0.12", "a-0.0.1", "a-0.12.1",
    }  # fmt: skip
    for number in range(2):  # several of one job
        run.write_worker(worker(id=f"a-0-0.{number}"))
        run.worker_identity_path(f"a-0-0.{number}", 3).touch()
    run.forget_workers(set(ids))
    assert not any(path for folder in (run.workers_path, run.orders_path) for path in folder.iterdir())
