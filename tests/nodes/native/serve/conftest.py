"""Small random models with their own tokenizer, and real servers in front of them."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest

from ....support.chat_model import write_chat_model, write_tokenizer
from ....support.forking import ForkedEngine
from ....support.waiting import eventually

COMMAND = [sys.executable, "-m", "slurminfer.nodes.native"]


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in float32."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_chat_model(directory)
    return directory


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., None]:
    """Writes the test tokenizer's files into a directory."""
    return write_tokenizer


@dataclass(frozen=True)
class RunningServer:
    """A server process."""

    url: str
    process: subprocess.Popen[str] | ForkedEngine
    key: str = "none"
    clients: list[openai.OpenAI] = field(default_factory=list)

    def client(self, api_key: str = "none") -> openai.OpenAI:
        """A client that is closed when the server ends."""
        self.clients.append(openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=60))
        return self.clients[-1]

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.key}"}).text
        found = re.search(rf"^slurminfer_engine_{name} (.*)$", text, re.MULTILINE)
        assert found, f"no metric {name} in:\n{text}"
        return float(found[1])


def _start(
    arguments: Sequence[str], env: dict[str, str] | None, wrapper: Sequence[str] = (), *, forks: bool = False
) -> RunningServer:
    """Start a server on a free port; it listens, and maybe still loads."""
    words, environ = ["--port", "0", "--threads", "1", *arguments], {**os.environ, **(env or {})}
    process: subprocess.Popen[str] | ForkedEngine
    if forks:
        process = ForkedEngine(words, environ)
    else:
        process = subprocess.Popen([*wrapper, *COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+:\d+", line)
    assert found, f"no address in {line!r}"
    return RunningServer(found[0], process, (env or {}).get("SLURMINFER_API_KEY", "none"))


def _end(server: RunningServer) -> None:
    for client in server.clients:
        client.close()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(20)
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@contextmanager
def _starting(*arguments: str, env: dict[str, str] | None = None) -> Iterator[RunningServer]:
    server = _start(arguments, env)
    try:
        yield server
    finally:
        _end(server)


@contextmanager
def _forking(*arguments: str, env: dict[str, str] | None = None) -> Iterator[RunningServer]:
    server = _start(arguments, env, forks=True)
    try:
        yield server
    finally:
        _end(server)


@contextmanager
def _serving(
    *arguments: str, env: dict[str, str] | None = None, wrapper: Sequence[str] = ()
) -> Iterator[RunningServer]:
    server = _start(arguments, env, wrapper, forks=not wrapper)
    try:
        eventually(lambda: httpx.get(f"{server.url}/health").status_code == 200, "health")
        yield server
    finally:
        _end(server)


@pytest.fixture(scope="session")
def command() -> list[str]:
    return COMMAND


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return eventually


@pytest.fixture(scope="session")
def starting() -> Callable[..., AbstractContextManager[RunningServer]]:
    """Starts a server that listens, and maybe still loads: a program, as users start it."""
    return _starting


@pytest.fixture(scope="session")
def forking() -> Callable[..., AbstractContextManager[RunningServer]]:
    """As `starting`, in a process that is forked: for tests of several ranks, which start the others as programs."""
    return _forking


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[RunningServer]]:
    """Starts a server that is ready: without a wrapper, in a process that is forked, which takes less CPU time."""
    return _serving


@pytest.fixture(scope="session")
def server(model_directory: Path) -> Iterator[RunningServer]:
    """The random model with plenty of room."""
    with _serving("--model", str(model_directory), "--dtype", "float32", "--kv-cache-gib", "0.05") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> openai.OpenAI:
    return server.client()
