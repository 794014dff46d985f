"""The sandbox's own life: files, start, damage, stop."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.core.locks import Lock, try_lock
from slurminfer.slurm.sandbox import Sandbox, config, processes
from slurminfer.slurm.sandbox.layout import SandboxLayout, free_layout
from slurminfer.slurm.sandbox.system import gpus, locked, require_packages, require_root

from ..support.waiting import eventually

pytestmark = pytest.mark.process

LAYOUT = SandboxLayout(directory="/var/tmp/box", nodes=3, slot=5)


@pytest.fixture
def other(sandbox_directory, tmp_path):
    """A second, smaller sandbox beside the session's, not started; it exposes the test's closed directory."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open/file").write_text("seen")
    box = Sandbox(sandbox_directory / "other", nodes=1, expose=[tmp_path / "open"])
    yield box
    box.stop()


def pids_of(box: Sandbox) -> list[int]:
    machines = processes.machines(box.directory).values()
    return [*machines, *(pid for machine in machines for pid in processes.inside(machine))]


def test_the_default_partition_is_cpu_and_only_low_is_preempted():
    lines = [line.split() for line in config.slurm_conf(LAYOUT).splitlines() if line.startswith("PartitionName=")]
    assert [line[0] for line in lines if "Default=YES" in line] == ["PartitionName=cpu"]
    assert [line[0] for line in lines if "PreemptMode=REQUEUE" in line] == ["PartitionName=low"]


def test_every_node_has_its_own_name_address_and_port():
    nodes = [line.split() for line in config.slurm_conf(LAYOUT).splitlines() if line.startswith("NodeName=")]
    assert nodes[2][:4] == ["NodeName=n3", "NodeHostname=n3", "NodeAddr=127.77.5.13", "Port=20324"]
    assert "127.77.5.13 n3\n" in config.hosts(LAYOUT, "127.0.0.1 localhost\n")


def test_sandboxes_in_other_slots_share_no_port():
    neighbour = SandboxLayout(directory="/var/tmp/other", nodes=48, slot=6)
    assert not set(LAYOUT.ports()) & set(neighbour.ports())


def test_a_block_of_ports_in_use_is_passed_over():
    first = free_layout(Path("/var/tmp/box"), 2)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", first.accounting_port))
        assert free_layout(Path("/var/tmp/box"), 2).slot != first.slot


def test_real_gpus_are_shared_out_among_the_nodes():
    layout = SandboxLayout(
        directory="/var/tmp/box", nodes=2, slot=5, gpus=["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"]
    )
    assert config.gres_conf(layout).splitlines() == [
        "NodeName=n1 AutoDetect=off Name=gpu File=/dev/nvidia0",
        "NodeName=n2 AutoDetect=off Name=gpu File=/dev/nvidia1",
        "NodeName=n2 AutoDetect=off Name=gpu File=/dev/nvidia2",
    ]
    nodes = [line for line in config.slurm_conf(layout).splitlines() if line.startswith("NodeName=")]
    assert ["Gres=gpu:1" in nodes[0], "Gres=gpu:2" in nodes[1]] == [True, True]
    more_nodes = SandboxLayout(directory="/var/tmp/box", nodes=3, slot=5, gpus=["/dev/nvidia0"])
    assert config.slurm_conf(more_nodes).count("Gres=") == 1


def test_a_machine_without_gpus_is_told_of(monkeypatch, tmp_path):
    monkeypatch.setattr("slurminfer.slurm.sandbox.system._DEVICES", tmp_path)
    with pytest.raises(SlurmError, match=rf"this machine has no GPUs: expected {tmp_path}/nvidia0"):
        gpus()


def test_ordinary_users_are_told_that_it_needs_root(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for action in (Sandbox(tmp_path).start, Sandbox(tmp_path).stop, Sandbox(tmp_path).status, require_root):
        with pytest.raises(SlurmError, match="needs root"):
            action()


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr("slurminfer.slurm.sandbox.system.PATH", "/nonexistent")
    with pytest.raises(SlurmError, match=r"needs slurmctld, .* apt-get install --yes .* slurm-wlm slurmdbd"):
        require_packages()


@pytest.mark.slurm
def test_a_directory_below_a_closed_one_is_refused(tmp_path):
    with pytest.raises(SlurmError, match="ordinary users cannot enter"):
        Sandbox(tmp_path / "box").start()


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path):
    with locked(tmp_path / "lock"), (tmp_path / "lock").open() as other:
        assert try_lock(other) is Lock.BUSY
    with (tmp_path / "lock").open() as other:
        assert try_lock(other) is Lock.HELD


def test_a_filesystem_without_locks_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("slurminfer.slurm.sandbox.system.wait_lock", lambda file: Lock.UNSUPPORTED)
    with pytest.raises(SlurmError, match=r"cannot lock .*/lock: expected a filesystem with flock"):
        locked(tmp_path / "lock").__enter__()


@pytest.mark.slurm
@pytest.mark.parametrize("nodes", [0, 49])
def test_an_impossible_number_of_nodes_is_refused(sandbox_directory, nodes):
    with pytest.raises(SlurmError, match=f"nodes = {nodes}: expected 1 to 48"):
        Sandbox(sandbox_directory / "other", nodes=nodes).start()


@pytest.mark.slurm
def test_a_running_sandbox_is_not_started_again(sandbox):
    with pytest.raises(SlurmError, match=r"runs in .* already"):
        Sandbox(sandbox.directory).start()


@pytest.mark.slurm
def test_a_never_started_sandbox_is_stopped(tmp_path):
    assert Sandbox(tmp_path).status().state == "stopped"
    with pytest.raises(SlurmError, match="no sandbox has been started"):
        Sandbox(tmp_path).run_as("root", ["true"])


@pytest.mark.slurm
def test_a_user_is_on_the_head_node_with_this_python(sandbox, ordinary_user):
    script = "import os, slurminfer; print(os.uname().nodename, os.environ['USER'], os.getuid())"
    done = sandbox.run_as(ordinary_user, [sys.executable, "-c", script])
    account = sandbox.ensure_user(ordinary_user)
    assert done.stdout.split() == ["head", ordinary_user, str(account.pw_uid)]


@pytest.mark.slurm
def test_a_killed_slurmd_is_seen_and_comes_back(sandbox):
    sandbox.node_kill("n3")
    assert sandbox.status().nodes["n3"] == "no slurmd"
    assert sandbox.status().state == "damaged"
    sandbox.node_up("n3")
    assert sandbox.status().state == "running"


@pytest.mark.slurm
def test_two_sandboxes_live_side_by_side_and_stop_without_a_trace(sandbox, other, ordinary_user, tmp_path):
    other.start()
    assert (other.status().state, sandbox.status().state) == ("running", "running")
    assert other.run_as(ordinary_user, ["sinfo", "-h", "-o", "%D"]).stdout.split()[0] == "1"
    assert other.run_as(ordinary_user, ["srun", "hostname"]).stdout == "n1\n"
    assert other.run_as(ordinary_user, ["srun", "cat", str(tmp_path / "open/file")]).stdout == "seen"
    assert sandbox.run_as(ordinary_user, ["cat", str(tmp_path / "open/file")]).returncode == 1
    job = other.run_as(ordinary_user, ["sbatch", "-o", "/dev/null", "--wrap", "sleep 300"])
    assert job.returncode == 0, job.stderr
    pids = pids_of(other)
    assert len(pids) > 6
    other.stop()
    assert [pid for pid in pids if processes.is_alive(pid)] == []
    assert (other.status().state, sandbox.status().state) == ("stopped", "running")


@pytest.fixture
def rivals(sandbox_directory):
    """Two sandboxes, not started, that would choose the same ports."""
    first = Sandbox(sandbox_directory / "rival", nodes=1)
    wanted = free_layout(first.directory, 1).slot
    names = (sandbox_directory / f"rival-{index}" for index in range(10_000))
    second = Sandbox(next(name for name in names if free_layout(name, 1).slot == wanted), nodes=1)
    yield first, second
    for box in (first, second):
        box.stop()


def test_two_sandboxes_start_at_once(rivals, sandbox_directory):
    command = [sys.executable, "-m", "slurminfer", "sandbox", "start", "--nodes", "1", "--dir"]
    env = {**os.environ, "SLURMINFER_HOME": str(sandbox_directory / "home")}
    started = [subprocess.Popen([*command, str(box.directory)], env=env, stdout=subprocess.DEVNULL) for box in rivals]
    assert [process.wait(120) for process in started] == [0, 0]
    assert [box.run_as("root", ["srun", "hostname"]).stdout for box in rivals] == ["n1\n", "n1\n"]
    assert len({(box.directory / "etc/slurm.conf").read_text().split("SlurmctldPort=")[1][:5] for box in rivals}) == 2


@pytest.mark.slurm
def test_jobs_are_given_this_machines_gpus(other, ordinary_user, monkeypatch, tmp_path):
    devices = other.directory.parent / "devices"
    devices.mkdir()
    for index in (0, 1, 2, 10):
        os.mknod(devices / f"nvidia{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    monkeypatch.setattr("slurminfer.slurm.sandbox.system._DEVICES", devices)
    box = Sandbox(other.directory, nodes=2, real_gpus=True)
    box.start()
    seen = f"for gpu in {devices}/nvidia*; do cat $gpu && echo $(hostname) $CUDA_VISIBLE_DEVICES ${{gpu##*/}}; done"
    found = box.run_as(ordinary_user, ["srun", "-N2", "--gres=gpu:1", "sh", "-c", seen])
    # By Slurm, a node's GPUs are numbered from 0, and so they are by CUDA, which passes over what it cannot open.
    assert sorted(found.stdout.splitlines()) == ["n1 0 nvidia0", "n1 0 nvidia1", "n2 0 nvidia10", "n2 0 nvidia2"]
    assert found.stderr.count("Permission denied") == 4
    both = box.run_as(ordinary_user, ["srun", "-w", "n2", "--gres=gpu:2", "printenv", "CUDA_VISIBLE_DEVICES"])
    assert both.stdout == "0,1\n", both.stderr


@pytest.mark.slurm
def test_a_sandbox_whose_daemons_were_killed_starts_again(other):
    other.start()
    head = processes.machines(other.directory)["head"]
    killed = [pid for pid, name in processes.inside(head).items() if name in config.HEAD_DAEMONS]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(processes.is_alive, killed)))
    status = other.status()
    assert (status.state, set(status.daemons.values())) == ("damaged", {False})
    left = pids_of(other)
    other.start()
    assert other.status().state == "running"
    assert [pid for pid in left if processes.is_alive(pid)] == []


@pytest.mark.slurm
def test_a_process_that_only_looks_like_a_machine_is_left_alone(sandbox, other):
    marks = {processes.DIRECTORY_MARK: str(other.directory), processes.MACHINE_MARK: "head"}
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **marks}) as foreign:
        other.stop()
        assert foreign.poll() is None
        foreign.terminate()
