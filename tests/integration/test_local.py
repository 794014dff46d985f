"""The whole path on this machine: spec -> processes -> router -> answers, with a real model where it says something."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from ..support.small_model import make_original
from ..support.waiting import eventually
from .conftest import HOUSE
from .messages import check_messages

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.network]

SPEC = """
name = "here"
[model]
path = "{model}"
[[pool]]
name = "cpu"
workers = {workers}
{pool}
[router]
port = {port}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "small"
    make_original(directory)
    return directory


@pytest.fixture
def write_spec(tmp_path, small):
    def write(pool: str = "", port: int = 0, model: str | Path = small, workers: int = 1) -> Path:
        path = tmp_path / "spec.toml"
        path.write_text(SPEC.format(pool=pool, port=port, model=model, workers=workers))
        return path

    return write


def processes_of(home: Path) -> list[int]:
    """Living processes whose command line or environment names the test's home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURMINFER_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def refuses_wrong_keys(endpoint: str) -> None:
    assert httpx.get(f"{endpoint}/models").status_code == 401
    with (
        openai.OpenAI(base_url=endpoint, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_serve_stream_batch_messages_and_stop(user, write_spec, tmp_path):
    user.ok("serve", write_spec(model="demo", workers=2), "--local", "--wait")
    client = user.client("here")
    parts = client.chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        stream=True,
        temperature=0,
        max_tokens=24,
    )
    assert "Paris" in "".join(part.choices[0].delta.content or "" for part in parts)
    refuses_wrong_keys(user.status("here")["endpoint"])

    answers = tmp_path / "answers.jsonl"
    lines = (HOUSE / "examples/data/gsm8k-40.jsonl").read_text().splitlines()[:6]
    (tmp_path / "questions.jsonl").write_text("\n".join(lines) + "\n")
    user.ok("batch", tmp_path / "questions.jsonl", answers, "--run", "here", "--max-tokens", "8")
    done = [json.loads(line)["id"] for line in answers.read_text().splitlines()]
    assert sorted(done) == sorted(json.loads(line)["id"] for line in lines)

    check_messages(user)
    user.ok("stop", "here")
    assert user.status("here")["state"] == "stopped"
    assert processes_of(user.home) == []


def test_workers_share_one_copy_of_the_weights_until_stop_and_one_that_is_killed_is_replaced(
    user, write_spec, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    user.ok("serve", write_spec(f'stage_weights = "{disk}"', workers=2), "--local", "--wait")

    def both_ready():
        workers = user.status("here")["workers"]
        return [worker["state"] for worker in workers] == ["ready", "ready"] and workers

    workers = eventually(both_ready, "both workers are ready")
    assert [worker["remark"] for worker in workers] == ["", ""]
    assert None not in [worker["stage_s"] for worker in workers]
    logs = [process_log(user.home, n) for n in range(2)]
    assert sorted("(copied, " in log for log in logs) == [False, True]
    (copied,) = (path for path in disk.rglob("small") if path.is_dir())
    assert all(f"--model {copied} --served-model-name small" in log for log in logs)

    os.kill(int(workers[0]["job"].partition("@")[0]), signal.SIGKILL)
    client = user.client("here")
    for _ in range(4):
        client.completions.create(model="small", prompt="One, two,", max_tokens=2)

    def states():
        return {worker["id"]: worker["state"] for worker in user.status("here")["workers"]}

    eventually(lambda: states() == {"cpu-1": "ready", "cpu-2": "ready"}, "another worker has taken its place")
    (pool,) = user.status("here")["pools"]
    assert [one["id"] for one in pool["ended"]] == ["cpu-0"]
    assert f"--model {copied} " in process_log(user.home, 2) and "(copied, " not in process_log(user.home, 2)
    user.ok("stop", "here")
    assert list((disk / f"slurminfer-{os.getuid()}" / "weights").iterdir()) == []


def process_log(home: Path, worker: int) -> str:
    return (home / f"runs/here/logs/cpu-{worker}/process.log").read_text(encoding="utf-8")


def test_a_name_can_be_served_again_once_it_is_stopped_or_its_processes_were_all_killed(user, write_spec):
    spec = write_spec()
    user.ok("serve", spec, "--local")
    second = user.slurminfer("serve", spec, "--local")
    assert second.returncode == 1
    assert "deployment 'here' exists already" in second.stderr
    assert "slurminfer stop here" in second.stderr
    for pid in processes_of(user.home):
        os.kill(pid, signal.SIGKILL)
    assert user.status("here")["state"] == "failed"
    user.ok("serve", spec, "--local")
    user.ok("stop", "here")
    user.ok("serve", spec, "--local")


def test_a_taken_router_port_is_named(user, write_spec):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = user.slurminfer("serve", write_spec(port=port), "--local", "--wait")
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "router.port" in done.stderr


def test_a_model_that_is_not_there_is_named_before_anything_starts(user, tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('name = "here"\n[model]\npath = "/no/such/model"\n[[pool]]\n')
    done = user.slurminfer("serve", path, "--local")
    assert done.returncode == 1
    assert "/no/such/model" in done.stderr
    assert not (user.home / "runs").exists()


def test_an_engine_that_cannot_load_its_model_says_why(user, write_spec):
    done = user.slurminfer("serve", write_spec('extra_args = ["--context-length", "999999"]'), "--local", "--wait")
    assert done.returncode == 1
    assert "999999" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_with_a_spec_of_its_own_leaves_nothing_running(user, write_spec, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "One, two,"}\nnot json\n{"prompt": "A, B,", "id": "letters"}\n')
    out = tmp_path / "out.jsonl"
    done = user.slurminfer("batch", tmp_path / "in.jsonl", out, "--spec", write_spec(), "--local", "--max-tokens", "4")
    assert done.returncode == 1 and "failed      1 row" in done.stdout
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [bool(row.get("generated_text")) for row in rows] == [True, False, True]
    assert rows[1]["error"] and rows[2]["id"] == "letters"
    assert processes_of(user.home) == []


def test_dry_run_prints_the_commands_and_starts_nothing(user, write_spec):
    said = user.ok("serve", write_spec(), "--local", "--dry-run")
    assert "slurminfer.jobs.serve" in said
    assert "slurminfer.nodes.agent" in said
    assert not (user.home / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "nobody"], 1, "no deployment named 'nobody'"),
        (["serve", "nothing.toml", "--local"], 1, "nothing.toml"),
        (["batch", "in", "out"], 2, "expected one of --spec, --run and --endpoint"),
        (["serve", "examples/demo.toml", "--no-such-flag"], 2, "No such option"),
        (["models", "fetch", "nothing"], 1, "'nothing'"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(user, words, code, said):
    done: subprocess.CompletedProcess[str] = user.slurminfer(*words, NO_COLOR="1", TERM="dumb")
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
