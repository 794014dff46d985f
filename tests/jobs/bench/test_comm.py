"""`slurminfer bench comm`: the line through the times, where it measures, and real ranks on this machine."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import psutil
import pytest

from slurminfer.core.errors import CommunicationError, SlurmError, SpecError, UsageError
from slurminfer.core.job import JobPhase
from slurminfer.core.site.communication import CommPoint, CommProfile
from slurminfer.core.site.store import read_comms
from slurminfer.core.spec.job import JobSpec
from slurminfer.jobs.bench.comm import ranks as ranks_module
from slurminfer.jobs.bench.comm.fit import fit
from slurminfer.jobs.bench.comm.group import CommTask
from slurminfer.jobs.bench.comm.job import bench, prepare, request, sizes, task
from slurminfer.jobs.bench.comm.ranks import run_here, step_argv, why_step_failed
from slurminfer.jobs.bench.comm.table import describe, print_comm
from slurminfer.jobs.bench.comm.where import Asked, Here, Job, JobStep, choose
from slurminfer.jobs.launch import follow as following
from slurminfer.quant.progress import silent

from ...support.launchers import FakeLauncher
from ...support.waiting import eventually

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "slurminfer", "bench", "comm"]
SIZES = tuple(4**power for power in range(5, 14))  # 1 KiB to 64 MiB
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ---- the line


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_line_is_found_again(noise):
    chosen = random.Random(0)
    points = [CommPoint(n, (3e-5 + n * 1e-9) * (1 + chosen.uniform(-noise, noise))) for n in SIZES]
    found = fit("send_recv", 2, points)
    assert found.alpha_s == pytest.approx(3e-5, rel=noise + 1e-9)
    assert found.beta_s_per_byte == pytest.approx(1e-9, rel=noise + 1e-9)
    assert found.error <= found.worst_error <= 2.1 * noise + 1e-9
    assert (found.step_alpha_s, found.step_beta_s_per_byte) == (found.alpha_s, found.beta_s_per_byte)


@pytest.mark.parametrize(("operation", "steps", "share"), [("all_reduce", 6, 1.5), ("all_gather", 3, 0.75)])
def test_the_steps_of_a_ring_are_found_again(operation, steps, share):
    found = fit(operation, 4, [CommPoint(n, steps * 2e-5 + share * n * 5e-10) for n in SIZES])
    assert found.step_alpha_s == pytest.approx(2e-5)
    assert found.step_beta_s_per_byte == pytest.approx(5e-10)
    assert found.alpha_s == pytest.approx(12e-5 if steps == 6 else 6e-5)


def test_neither_latency_nor_bandwidth_is_below_nothing():
    assert fit("send_recv", 2, [CommPoint(1000, 1e-6), CommPoint(2000, 3e-6)]).alpha_s == 0
    falling = fit("send_recv", 2, [CommPoint(1000, 2e-6), CommPoint(2000, 1e-6)])
    assert falling.beta_s_per_byte == 0 and 1e-6 < falling.alpha_s < 2e-6


# ---- where to measure


def chosen(environ=None, slurm=True, **options):
    return choose(Asked(**options), environ or {}, lambda: slurm)


def test_where_it_measures():
    assert chosen(local=True, ranks=3) == Here(3)
    assert chosen(slurm=False) == Here(2)
    assert chosen(environ=ALLOCATION) == JobStep(2, 1)
    assert chosen(environ=ALLOCATION | {"SLURM_GPUS_ON_NODE": "8"}) == JobStep(2, 8)
    assert chosen(environ=ALLOCATION, nodes=1, ranks_per_node=4) == JobStep(1, 4)
    assert chosen(environ=ALLOCATION, local=True) == Here(2)
    job = chosen(nodes=2, ranks_per_node=3, partition="cpu", time="5")
    assert isinstance(job, Job) and job.ranks == 6
    assert (job.spec.partition, job.spec.time_s, job.spec.cpus_per_task) == ("cpu", 300, 3)
    gpus = chosen(nodes=1, gpus_per_node=4)
    assert isinstance(gpus, Job) and gpus.ranks == 4


@pytest.mark.parametrize(
    ("environ", "options", "said"),
    [
        ({}, {}, "expected --nodes for a job of its own, an allocation around it .*, or --local"),
        ({}, {"local": True, "nodes": 2}, "--nodes: --local starts processes of this machine"),
        ({}, {"nodes": 2, "ranks": 2}, "--ranks: .* --ranks-per-node"),
        ({}, {"nodes": 1}, "one rank has nobody to talk to"),
        ({}, {"partition": "cpu"}, "one rank has nobody to talk to"),
        (ALLOCATION, {"partition": "cpu", "time": "5"}, "--partition, --time: job 7 around it has its nodes"),
        (ALLOCATION, {"nodes": 3}, "--nodes 3: expected at most the 2 of job 7"),
        (ALLOCATION | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, {}, "start it without srun"),
    ],
)
def test_options_that_do_not_go_together(environ, options, said):
    with pytest.raises(UsageError, match=said):
        chosen(environ, **options)


def test_values_of_the_job_are_checked():
    with pytest.raises(SpecError, match="time = 'soon': expected a Slurm time"):
        chosen(nodes=2, time="soon")


def test_sizes_are_read():
    assert sizes("64K, 1K,1M,1000") == (1000, 1024, 65536, 1 << 20)


@pytest.mark.parametrize("text", ["", "1K", "1K,1024", "1K,2G", "0,1K", "1K,-2K", "1.5K,2K"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="expected two or more of 4 bytes or more"):
        sizes(text)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("mpi", 1.0, 1.0), "--backend 'mpi': expected one of auto, gloo, nccl"),
        (("gloo", 0.0, 1.0), "--seconds 0: expected more than 0"),
        (("gloo", 1.0, float("nan")), "--timeout nan: expected more than 0"),
    ],
)
def test_values_that_cannot_be(values, said):
    with pytest.raises(UsageError, match=said):
        task(Here(2), (1024, 2048), *values)


def test_wrong_usage_exits_with_2():
    done = subprocess.run([*COMMAND, "--local", "--partition", "cpu"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --partition: --local starts processes of this machine: give it --ranks only\n"


# ---- real ranks, on this machine


QUICK = CommTask(ranks=2, sizes=(1024, 16384, 262144), backend="gloo", seconds=0.5, timeout_s=60)
# Ends only when it is ended, and does not wait for a lost rank either.
LONG = msgspec.structs.replace(QUICK, sizes=tuple(range(1024, 1 << 20, 1024)), seconds=3600.0, timeout_s=3600.0)


def test_two_ranks_are_measured(home, capsys):
    found = bench(Here(2), msgspec.structs.replace(QUICK, seconds=1.5), silent)
    assert (found.ranks, found.backend, found.partition, found.gpu, found.interface) == (2, "gloo", None, None, "lo")
    assert found.hosts == (os.uname().nodename,)
    assert [fit.operation for fit in found.operations] == ["all_reduce", "all_gather", "send_recv"]
    for measured in found.operations:
        found_sizes = [point.bytes for point in measured.points]
        # A busy machine leaves sizes out at the end; a line needs two.
        assert len(found_sizes) >= 2 and found_sizes == list(QUICK.sizes[: len(found_sizes)])
        assert all(1e-6 < point.seconds < QUICK.timeout_s for point in measured.points)
        assert measured.beta_s_per_byte >= 0 and measured.alpha_s >= 0 and measured.seconds(1 << 20) > 0
    assert list((home / "jobs").iterdir()) == []

    print_comm(found, Path("/somewhere.json"))
    said = capsys.readouterr().out
    assert "2 ranks on" in said and "processes of this machine, no network between them" in said
    for word in ("all-reduce", "all-gather", "send/recv", "16 KiB", "kept in /somewhere.json"):
        assert word in said


def test_three_ranks_of_unequal_pieces_leave_out_a_size_that_would_take_too_long(home):
    found = bench(Here(3), msgspec.structs.replace(QUICK, ranks=3, sizes=(1024, 65536, 1 << 27), seconds=0.2), silent)
    reduced, gathered, sent = found.operations
    assert [point.bytes for point in reduced.points] == [point.bytes for point in sent.points] == [1024, 65536]
    assert [point.bytes for point in gathered.points] == [1032, 65544]  # as many as 3 ranks of float32 share
    assert reduced.step_alpha_s == pytest.approx(reduced.alpha_s / 4)


def test_the_command_prints_json_and_keeps_it():
    options = ["--local", "--sizes", "1K,64K", "--seconds", "0.2", "--json"]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout, type=CommProfile)
    assert read_comms() == (found,)
    assert json.loads(done.stdout)["operations"][2]["operation"] == "send_recv"


# ---- ranks that fail


def folder_of(home, task):
    folder = home / "ranks"
    prepare(folder, task)
    return folder


def ranks_of(parent: int) -> dict[int, psutil.Process]:
    """The living ranks that a process has started, by their number."""
    found = {}
    for child in psutil.Process(parent).children():
        words = child.cmdline()
        if "slurminfer.jobs.bench.comm.worker" in words:
            found[int(words[-2])] = child
    return found


def are_connected(ranks: dict[int, psutil.Process]) -> bool:
    """Whether rank 1 has its two connections to rank 0: its lifeline, and the one for what is measured."""
    states = [connection.status for connection in ranks[1].net_connections("tcp")] if len(ranks) == 2 else []
    return states.count(psutil.CONN_ESTABLISHED) == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_at_once_and_is_named(home, victim, monkeypatch):
    monkeypatch.setattr(ranks_module, "_BLAME_S", LONG.seconds)  # a rank that was killed is blamed without delay
    folder = folder_of(home, LONG)

    def kill():
        eventually(lambda: are_connected(ranks_of(os.getpid())))
        ranks_of(os.getpid())[victim].kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(CommunicationError, match=rf"rank {victim} on .* killed by SIGKILL"):
        run_here(folder, range(2), {"SLURMINFER_LOCAL": "1"}, LONG.seconds)
    thread.join()
    assert ranks_of(os.getpid()) == {}


def test_a_rank_that_does_not_come_is_named(home):
    folder = folder_of(home, msgspec.structs.replace(QUICK, ranks=3, timeout_s=1.0))
    with pytest.raises(CommunicationError, match=r"of 3 ranks, these have not come within 1 s: 1, 2"):
        run_here(folder, range(1), {"SLURMINFER_LOCAL": "1"}, 60)


def test_the_first_rank_does_not_come(home):
    folder = folder_of(home, msgspec.structs.replace(QUICK, timeout_s=1.0))
    with pytest.raises(CommunicationError, match=r"rank 1 on .* rank 0 has not come within 1 s"):
        run_here(folder, range(1, 2), {"SLURMINFER_LOCAL": "1"}, 60)


def test_ranks_that_do_not_end_are_ended(home):
    folder = folder_of(home, LONG)
    with pytest.raises(CommunicationError, match="have not ended in time: 0, 1"):
        run_here(folder, range(2), {"SLURMINFER_LOCAL": "1"}, 1.0)
    assert ranks_of(os.getpid()) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_command_takes_its_ranks_with_it(interruptible, number):
    options = ["--local", "--seconds", "300"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        eventually(lambda: len(ranks_of(command.pid)) == 2)
        ranks = list(ranks_of(command.pid).values())
        command.send_signal(number)
        command.communicate(timeout=30)
    assert command.returncode != 0
    assert psutil.wait_procs(ranks, timeout=5)[1] == []


# ---- under Slurm


def test_the_step_has_a_task_for_every_rank(tmp_path):
    words = step_argv(tmp_path / "100%", 2, 4)
    assert words[0] == "srun"
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--kill-on-bad-exit=1"} <= set(words)
    assert f"--output={tmp_path}/100%%/rank.%t.log" in words
    assert words[-1] == str(tmp_path / "100%")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "srun: error: n1: task 0: Exited with exit code 3\nsrun: error: n2: task 1: Killed\n",
            "rank 1 on n2: Killed",
        ),
        (
            "srun: error: n1: tasks 0-1: Exited with exit code 1\nsrun: error: n2: task 2: Terminated\n",
            "rank 0 on n1: Exited with exit code 1: error: of 3 ranks, these have not come within 2 s: 2",
        ),
        (
            "srun: error: n2: task 1: Exited with exit code 3\n",
            "rank 1 on n2: Exited with exit code 3: error: rank 1 on n2: Connection closed by peer",
        ),
        (
            "srun: error: Unable to create step for job 7: More processors requested than permitted\n",
            "srun: error: Unable to create step for job 7: More processors requested than permitted",
        ),
        ("", "srun said nothing"),
    ],
)
def test_why_a_step_has_failed(tmp_path, said, expected):
    (tmp_path / "srun.log").write_text(said)
    (tmp_path / "rank.0.log").write_text("error: of 3 ranks, these have not come within 2 s: 2\n")
    if "task 1: Exited" in said:
        (tmp_path / "rank.1.log").write_text("error: rank 1 on n2: Connection closed by peer\n")
    assert why_step_failed(tmp_path) == expected


JOB = Job(JobSpec(nodes=2, partition="cpu", time="5", cpus_per_task=2), 2)


@pytest.fixture
def use(monkeypatch):
    def use(launcher):
        monkeypatch.setattr("slurminfer.jobs.launch.launchers.launcher_named", lambda name: launcher)
        monkeypatch.setattr(following, "_POLL_S", 0.0)
        return launcher

    return use


def test_the_job_runs_once_and_is_not_queued_again(tmp_path):
    job = request(JOB, tmp_path)
    assert (job.nodes, job.cpus_per_task, job.partition, job.time_s) == (2, 2, "cpu", 300)
    assert job.slurm == {"no-requeue": True}
    assert list(job.entry.argv())[-3:] == ["bench", "comm", "--ranks-per-node=2"]


def test_a_job_that_is_no_longer_wanted_is_cancelled(use):
    launcher = use(FakeLauncher(JobPhase.PENDING, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bench(JOB, QUICK, silent)
    assert launcher.cancelled == ["1"]


def test_a_job_that_fails_says_why(use):
    use(FakeLauncher(JobPhase.PENDING, JobPhase.RUNNING, JobPhase.FAILED))
    with pytest.raises(
        SlurmError, match=r"job 1 ended as FAILED \(because\) without a result: .*; logs in .*bench-comm-"
    ):
        bench(JOB, QUICK, silent)


def test_what_was_measured_is_said_in_one_line():
    found = CommProfile(
        date="", partition="gpu", hosts=("n1", "n2"), gpu="NVIDIA H100", ranks=16, backend="nccl", interface="ib0",
        torch="2.13.0", operations=(),
    )  # fmt: skip
    assert describe(found) == "16 ranks on 2 nodes (n1, n2): nccl on NVIDIA H100, interface ib0, PyTorch 2.13.0"
