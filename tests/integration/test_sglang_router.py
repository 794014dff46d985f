"""`backend = "sglang"` with sglang-router itself before native engines.

Opt-in: SLURMINFER_TEST_SGLANG_ROUTER names a Python that has sglang-router 0.3.2 (requirements/sglang-router.txt).
"""

import os
import signal
import subprocess
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from slurminfer.core.rundir import RunDirectory

from ..support.waiting import eventually, has_ended
from .conftest import User

PYTHON = os.environ.get("SLURMINFER_TEST_SGLANG_ROUTER")
SPEC = """
name = "rust"
[model]
path = "demo"
[[pool]]
name = "cpu"
workers = 2
[router]
port = 0
backend = "sglang"
python = "{python}"
"""

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(PYTHON is None, reason="SLURMINFER_TEST_SGLANG_ROUTER names no Python that has sglang-router"),
]


@pytest.fixture
def client(user: User, tmp_path: Path) -> openai.OpenAI:
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC.format(python=PYTHON))
    user.ok("serve", spec, "--local", "--wait")
    return user.client("rust")


def listed(user: User) -> list[str]:
    """The addresses of the workers that sglang-router has; none while it does not answer."""
    run = RunDirectory(user.home / "runs" / "rust")
    record = run.read_router()
    assert record is not None
    headers = {"Authorization": f"Bearer {run.key()}"}
    try:
        answer = httpx.get(f"{record.url}/workers", headers=headers)
    except httpx.TransportError:
        return []
    return [worker["url"] for worker in answer.json()["workers"]]


def process_of(user: User) -> psutil.Process:
    """sglang-router, a grandchild of the router's process."""
    record = RunDirectory(user.home / "runs" / "rust").read_router()
    assert record is not None
    (relay,) = psutil.Process(record.pid).children()
    (found,) = relay.children()
    return found


def complete(client: openai.OpenAI, stream: bool) -> str:
    messages = [{"role": "user", "content": "Hi"}]
    options = {
        "model": "SmolLM2-135M-Instruct",
        "messages": messages,
        "max_tokens": 8,
        "temperature": 0,
        "stream": stream,
    }
    answer = client.chat.completions.create(**options)  # type: ignore[call-overload]
    if not stream:
        return str(answer.choices[0].message.content)
    return "".join(part.choices[0].delta.content or "" for part in answer if part.choices)


def test_workers_come_and_go(user: User, client: openai.OpenAI, tmp_path: Path) -> None:
    said = complete(client, stream=False)
    assert said and complete(client, stream=True) == said

    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    user.ok("batch", questions, tmp_path / "answers.jsonl", "--run", "rust", "--max-tokens", "4")
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2

    before = process_of(user)
    before.send_signal(signal.SIGKILL)
    eventually(lambda: has_ended(before.pid) and len(listed(user)) == 2)
    assert complete(client, stream=False) == said

    drain(user, "cpu-0")
    eventually(lambda: len(listed(user)) == 1)
    assert complete(client, stream=False) == said

    after = process_of(user)
    user.ok("stop", "rust")
    assert has_ended(after.pid)


def drain(user: User, worker_id: str) -> None:
    record = RunDirectory(user.home / "runs" / "rust").read_worker(worker_id)
    assert record is not None
    os.kill(record.pid, signal.SIGTERM)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_cannot_reach_an_engine(user: User, client: openai.OpenAI) -> None:
    eventually(lambda: len(listed(user)) == 2)
    url = listed(user)[0]
    asked = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/health"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "200"
    ids = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert subprocess.run([*ids, *asked], capture_output=True, text=True, check=False).stdout == "000"
