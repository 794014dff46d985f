"""A worker on two nodes: the agents and their engines are real processes, the nodes are this machine.

Nobody plays srun here; tests/integration does it all under Slurm.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from slurminfer.core.net.address import interface_of, node_address
from slurminfer.core.net.identity import client_context
from slurminfer.core.records import EnergyRecord, NodeRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ...support.forking import ForkedCode
from ...support.waiting import eventually, has_ended
from .records import record_when

pytestmark = pytest.mark.process

SPEC = """
name = "wide"
[model]
path = "{model}"
[[pool]]
name = "cpu"
python = "{python}"
nodes = {nodes}
tensor_parallel = 2
cpus_per_task = {cpus}
{more}
"""

Start = Callable[..., ForkedCode]


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    directory = RunDirectory.named("wide")
    directory.create()
    write_spec(directory)
    return directory


def write_spec(run: RunDirectory, nodes: int = 2, model: str = "/models/fake", more: str = "") -> None:
    engine = Path(__file__).with_name("fake_engine.py")
    python = run.path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {engine} "$@"\n')
    python.chmod(0o755)
    text = SPEC.format(python=python, nodes=nodes, cpus=2 // nodes, model=model, more=more)
    run.write_spec(parse_spec(text))


@pytest.fixture
def start_agent(run, tmp_path, agent_process) -> Start:
    def start(node_rank: int, before: str = "pass", **env: str) -> ForkedCode:
        place = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3", "SLURM_PROCID": str(node_rank)}
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_SOCKET_IFNAME")}
        return agent_process(run, before, tmp_path / f"agent.{node_rank}.log", {**inherited, **place, **env})

    return start


def follower(run: RunDirectory) -> NodeRecord:
    return eventually(lambda: run.read_nodes("cpu-0", 3, nodes=2))[0]


def log_of(run: RunDirectory, node_rank: int) -> str:
    return (run.logs_of("cpu-0") / f"engine.3.{node_rank}.log").read_text()


def test_the_energy_is_that_of_all_nodes_and_of_the_runs_before(run, start_agent, tmp_path):
    def reads(rank: int, joules: int) -> str:
        zone = tmp_path / str(rank) / "intel-rapl:0"
        zone.mkdir(parents=True, exist_ok=True)
        for name, text in {"name": "package-0", "max_energy_range_uj": "900000000"}.items():
            (zone / name).write_text(text)
        (zone / "energy_uj").write_text(str(joules * 1_000_000))
        return (
            "from pathlib import Path; from functools import partial; "
            "from slurminfer.nodes.agent import follower, task; "
            "from slurminfer.nodes.energy import meter; meter.cpu_share = lambda *_: 0.5; follower.HEARTBEAT_S = 0.2; "
            f"task.EnergyMeter = partial(task.EnergyMeter, powercap=Path({str(zone.parent)!r}), period_s=0.2)"
        )

    before = WorkerRecord(
        id="cpu-0", pool="cpu", engine="native", model="m", state=WorkerState.GONE, host="n", job="7", epoch=2, pid=1,
        updated_at=1.0, energy=EnergyRecord(cpu_j=100.0),
    )  # fmt: skip
    run.write_worker(before)
    for rank in (0, 1):
        start_agent(rank, reads(rank, 0))
    record_when(run, WorkerState.READY)
    reads(0, 20)
    reads(1, 40)
    eventually(lambda: run.read_worker("cpu-0").energy == EnergyRecord(cpu_j=130.0), "both nodes have told")


def test_two_agents_make_one_worker_that_drains_as_one(run, start_agent):
    head, other = start_agent(0), start_agent(1)
    record = record_when(run, WorkerState.READY)
    assert record.epoch == 3
    assert record.url is not None and record.url.startswith(f"https://{node_address()}:")
    with httpx.Client(verify=client_context(run.worker_identity_path("cpu-0", 3)), trust_env=False) as gate:
        assert gate.get(f"{record.url}/health").status_code == 200
        process = next(one for one in psutil.Process(head.pid).children() if "slurminfer.nodes.gate" in one.cmdline())
        process.terminate()  # as Slurm does to all processes of a job, while answers go through it
        assert gate.get(f"{record.url}/health").status_code == 200
        assert not has_ended(process.pid)
    meeting = run.read_rendezvous("cpu-0", 3)
    assert meeting is not None and meeting.address.partition(":")[0] == node_address()
    rendezvous = meeting.address
    interface = interface_of(node_address())
    for node_rank in (0, 1):
        said = f"node rank {node_rank} of 2 at {rendezvous} over ['={interface}', '{interface}'], secret ***"
        assert said in log_of(run, node_rank)
    for process in (other, head):  # as Slurm does: the follower must not leave before the head
        process.terminate()
    assert head.wait(10) == 0
    assert other.wait(10) == 0
    assert record_when(run, WorkerState.GONE).reason == "ended by SIGTERM"
    assert has_ended(record.pid) and has_ended(follower(run).pid) and has_ended(process.pid)
    assert not run.worker_identity_path("cpu-0", 3).exists()


def test_all_nodes_have_the_weights_on_their_disks_until_the_worker_ends(run, start_agent, tmp_path):
    model, disk = tmp_path / "models" / "small", tmp_path / "disk"
    model.mkdir(parents=True)
    disk.mkdir()
    (model / "model.safetensors").write_bytes(bytes(1000))
    write_spec(run, model=str(model), more=f'stage_weights = "{disk}"')
    head, other = start_agent(0), start_agent(1)
    record = record_when(run, WorkerState.READY)
    assert record.model == "small" and record.remark == ""
    assert record.stage_s is not None and record.load_s is not None and record.load_s >= record.stage_s
    (copied,) = disk.rglob("small")
    for node_rank in (0, 1):
        said = (tmp_path / f"agent.{node_rank}.log").read_text()
        assert f"staged to {copied}: 0.0 GB in " in said
        assert f"--model {copied} --served-model-name small" in said
    assert (copied / "model.safetensors").read_bytes() == bytes(1000)
    head.terminate()
    assert head.wait(10) == 0
    assert other.wait(10) == 0
    assert list((disk / f"slurminfer-{os.geteuid()}" / "weights").iterdir()) == []


def test_a_killed_worker_leaves_its_copy_to_the_next_one(run, start_agent, tmp_path):
    model, disk = tmp_path / "models" / "small", tmp_path / "disk"
    model.mkdir(parents=True)
    disk.mkdir()
    (model / "config.json").write_text("{}")
    write_spec(run, nodes=1, model=str(model), more=f'stage_weights = "{disk}"')
    for said in ("copied", "were there already"):
        head = start_agent(0)
        record = record_when(run, WorkerState.READY)
        assert f"({said}" in (tmp_path / "agent.0.log").read_text()
        head.kill()
        head.wait()
        eventually(partial(has_ended, record.pid))
        run.write_worker(msgspec.structs.replace(record, state=WorkerState.GONE))
    assert list(disk.rglob("small")) != []


def test_caches_of_compiled_code_are_on_the_nodes_disk(run, start_agent, tmp_path):
    write_spec(run, nodes=1)
    (tmp_path / "disk").mkdir()
    on_shared_home = "from slurminfer.nodes.staging import caches; caches._is_shared = lambda path: True"
    head = start_agent(0, on_shared_home, SLURM_TMPDIR=str(tmp_path / "disk"))
    record_when(run, WorkerState.READY)
    assert f"Triton's cache in {tmp_path}/disk/slurminfer-{os.geteuid()}/caches/native-" in log_of(run, 0)
    head.terminate()
    assert head.wait(10) == 0


def test_a_follower_ends_with_its_head(run, start_agent):
    head, other = start_agent(0), start_agent(1)
    record_when(run, WorkerState.READY)
    head.terminate()
    assert head.wait(10) == 0
    assert other.wait(10) == 0


def test_the_reason_says_whom_slurm_has_lost_in_this_run_of_the_job(run, start_agent):
    log = run.logs_of("cpu-0") / "7_0_log.out"
    log.parent.mkdir(parents=True)
    before = "srun: error: n9: task 1: Terminated\n"  # when the job was requeued
    log.write_text(f"{before}starting on {socket.gethostname()}: ...\nsrun: error: n2: task 1: Killed\n")
    head, _ = start_agent(0), start_agent(1)
    record_when(run, WorkerState.READY)
    head.terminate()
    assert head.wait(10) == 0
    assert record_when(run, WorkerState.GONE).reason == "ended by SIGTERM: task 1 on n2: Killed"


@pytest.mark.parametrize("hangs", ["0", "1"])
def test_a_killed_process_of_another_node_ends_the_worker_and_is_named_first(run, start_agent, hangs):
    head, other = start_agent(0, FAKE_ENGINE_HANGS=hangs), start_agent(1)
    record_when(run, WorkerState.READY)
    os.kill(follower(run).pid, signal.SIGKILL)
    gone = record_when(run, WorkerState.GONE)
    assert gone.reason.startswith(f"node rank 1 on {socket.gethostname()}: engine killed by SIGKILL")
    assert ("node rank 0" in gone.reason and "a rank is lost" in gone.reason) == (hangs == "0")
    assert head.wait(10) == 1
    other.wait(10)


def test_a_killed_process_of_the_head_is_named_before_its_echo(run, start_agent):
    head, other = start_agent(0), start_agent(1)
    os.kill(record_when(run, WorkerState.READY).pid, signal.SIGKILL)
    gone = record_when(run, WorkerState.GONE)
    first, _, echo = gone.reason.partition("; ")
    assert first.startswith("node rank 0 on") and "killed by SIGKILL" in first
    assert echo.startswith("node rank 1 on") and "node rank 0 is lost" in echo
    assert head.wait(10) == 1
    other.wait(10)


def test_who_left_in_order_is_not_the_cause(run, start_agent):
    head, _ = start_agent(0, FAKE_ENGINE_HANGS="1"), start_agent(1)
    pid = record_when(run, WorkerState.READY).pid
    head.send_signal(signal.SIGSTOP)  # until it can see both
    os.kill(follower(run).pid, signal.SIGTERM)
    eventually(lambda: follower(run).exit_code == 0)
    os.kill(pid, signal.SIGKILL)
    head.send_signal(signal.SIGCONT)
    first, _, second = record_when(run, WorkerState.GONE).reason.partition("; ")
    assert first.startswith("node rank 0 on") and "killed by SIGKILL" in first
    assert second.startswith("node rank 1 on") and "exited with 0" in second


def test_a_process_that_dies_before_the_worker_is_ready_ends_it_too(run, start_agent):
    head, other = start_agent(0), start_agent(1, FAKE_ENGINE_FAILS="1")
    gone = record_when(run, WorkerState.GONE)
    assert gone.reason.startswith("node rank 1 on") and "RuntimeError: no memory to speak of" in gone.reason
    assert head.wait(10) == 1
    other.wait(10)


def test_a_follower_whose_head_does_nothing_fails_the_job(run, start_agent, tmp_path):
    hasty = "from slurminfer.nodes.agent import follower; follower._HEAD_ACTS_S = 1.0"
    head, other = start_agent(0), start_agent(1, hasty)
    record_when(run, WorkerState.READY)
    head.send_signal(signal.SIGSTOP)
    os.kill(follower(run).pid, signal.SIGKILL)
    assert other.wait(10) == 1
    said = (tmp_path / "agent.1.log").read_text()
    assert "error: node rank 1 on" in said and "killed by SIGKILL" in said


def test_a_port_lost_to_somebody_else_is_replaced_on_all_nodes(run, start_agent):
    # The first port is that of a socket that listens, as if another job had been quicker.
    before = (
        "import socket; real = head.hold_port; from slurminfer.core.net.address import node_address; "
        "answers = iter([socket.create_server((node_address(), 0))]); "
        "head.hold_port = lambda a: next(answers, None) or real(a)"
    )
    start_agent(1)
    start_agent(0, before)
    record_when(run, WorkerState.READY)
    assert log_of(run, 0).count("node rank 0 of 2") == 2
    assert log_of(run, 1).count("node rank 1 of 2") == 2
    meeting = run.read_rendezvous("cpu-0", 3)
    assert meeting is not None and follower(run).rendezvous == meeting.address


def test_the_interfaces_that_the_user_has_set_stay(run, start_agent):
    start_agent(0, NCCL_SOCKET_IFNAME="ib0"), start_agent(1, GLOO_SOCKET_IFNAME="ib1")
    record_when(run, WorkerState.READY)
    interface = interface_of(node_address())
    assert f"over ['ib0', '{interface}']" in log_of(run, 0)
    assert f"over ['={interface}', 'ib1']" in log_of(run, 1)


def test_ranks_of_one_node_meet_on_loopback_in_local_mode(run, start_agent):
    write_spec(run, nodes=1)
    head = start_agent(0, SLURMINFER_LOCAL="1")
    assert record_when(run, WorkerState.READY).url is None
    said = (run.logs_of("cpu-0") / "engine.0.0.log").read_text()
    assert "node rank 0 of 1 at 127.0.0.1:" in said
    assert "over ['=lo', 'lo']" in said
    assert run.read_rendezvous("cpu-0", 0) is None  # nobody else needs to know
    head.terminate()
    assert head.wait(10) == 0


def test_an_interface_that_is_not_there_is_named_with_those_that_are(run, start_agent, tmp_path):
    agent = start_agent(0, SLURMINFER_INTERFACE="nothing0")
    assert agent.wait(20) == 1
    said = (tmp_path / "agent.0.log").read_text()
    assert "SLURMINFER_INTERFACE = 'nothing0'" in said and "lo (127.0.0.1)" in said
    assert "Traceback" not in said
