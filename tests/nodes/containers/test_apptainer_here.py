"""The native engine in a real container, where Apptainer is installed."""

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec

from ...support.small_model import make_original
from ...support.waiting import eventually, has_ended
from ..agent.conftest import agent_process  # noqa: F401
from ..agent.records import record_when

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("apptainer") is None, reason="needs apptainer"),
]

SPEC = """
name = "life"
[model]
path = "{model}"
dtype = "float32"
[[pool]]
name = "cpu"
container = "{image}"
container_runtime = "apptainer"
container_mounts = ["/usr:/usr:ro"]
env = {{ APPTAINER_USERNS = "1" }}
"""


@pytest.fixture(params=["directory"])
def image(request, tmp_path) -> Path:
    """A directory with the folders of a system, whose programs are those of this machine, or a file made of it."""
    root = tmp_path / "an image $HOME's"
    for name in ("usr", "etc", "tmp", "proc", "sys", "dev", "root", "home", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    return root if request.param == "directory" else image_file(root)


def image_file(root: Path) -> Path:
    if shutil.which("mksquashfs") is None or shutil.which("squashfuse") is None:
        pytest.skip("needs squashfs-tools and squashfuse")
    path = root.with_suffix(".sif")
    subprocess.run(["apptainer", "build", path, root], check=True, env={**os.environ, "APPTAINER_USERNS": "1"})
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, image) -> RunDirectory:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    make_original(tmp_path / "model", context=4096)
    made = RunDirectory.named("life")
    made.create()
    made.write_spec(parse_spec(SPEC.format(model=tmp_path / "model", image=image)))
    return made


@pytest.fixture
def agent(run, tmp_path, agent_process) -> subprocess.Popen:  # noqa: F811
    env = {**os.environ, "SLURMINFER_LOCAL": "1", "APPTAINER_USERNS": "1"}
    return agent_process(run, "pass", tmp_path / "agent.log", env)


def family(record: WorkerRecord) -> list[psutil.Process]:
    assert record.pid is not None
    parent = psutil.Process(record.pid)
    return [parent, *parent.children(recursive=True)]


def engine_of(record: WorkerRecord) -> psutil.Process:
    return next(one for one in family(record) if "slurminfer.nodes.native" in one.cmdline())


@pytest.mark.parametrize("image", ["directory", "file"], indirect=True)
def test_it_answers_and_nothing_outlives_its_agent(run, agent):
    record = record_when(run, WorkerState.READY)
    assert engine_of(record).pid != record.pid
    transport = httpx.HTTPTransport(uds=record.socket)
    with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as client:
        headers, asked = {"Authorization": f"Bearer {record.key}"}, {"model": "model", "prompt": "One", "max_tokens": 4}
        assert client.post("/v1/completions", json=asked).status_code == 401
        answer = client.post("/v1/completions", json=asked, headers=headers)
        assert answer.json()["usage"]["completion_tokens"] == 4
    left = family(record)
    assert not [one for one in left if record.key in " ".join(one.cmdline())]
    agent.kill()
    for one in left:
        eventually(partial(has_ended, one.pid), "all have ended")


def test_the_walltime_s_signal_leaves_it_to_the_agent(run, agent):
    record = record_when(run, WorkerState.READY)
    engine = engine_of(record)
    for one in family(record):
        one.send_signal(signal.SIGUSR2)
    agent.send_signal(signal.SIGTERM)
    record_when(run, WorkerState.DRAINING)
    assert engine.is_running()
    assert agent.wait(60) == 0
    assert not engine.is_running()


def test_how_the_engine_has_ended_is_seen_outside(run, agent):
    record = record_when(run, WorkerState.READY)
    engine_of(record).kill()
    assert "engine killed by SIGKILL (out of memory?)" in record_when(run, WorkerState.GONE).reason
    assert agent.wait(60) == 1
