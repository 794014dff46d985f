"""An engine, and a deployment with a router, to be stormed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from slurminfer.core.rundir import RunDirectory

from ..support.small_model import make_original
from ..support.waiting import eventually

KEY = "sk-fuzz"
_SPEC = """
name = "storm"
[model]
path = "{model}"
dtype = "bfloat16"
[[pool]]
workers = 2
extra_args = ["--kv-cache-gib", "0.02"]
[router]
port = 0
"""
_TEMPLATE = """\
{%- for message in messages %}{{- '<' + message.role + '>' + message.content | trim }}
{%- if message.tool_calls %}{{- message.tool_calls | tojson }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"""


class Program:
    """A program of ours that listens at a port of loopback."""

    def __init__(self, pid: int, port: int, key: str, log: Path) -> None:
        self.port, self.key, self.log = port, key, log
        self._process = psutil.Process(pid)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def complete(self) -> str:
        """What the model says to one prompt, greedily."""
        body = {"model": "tiny", "prompt": "The quick brown", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        answer = self._client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["choices"][0]["text"]
        return text

    def is_zero(self, gauge: str) -> bool:
        """Whether all samples of a metric are zero."""
        found = re.findall(rf"^{gauge}(?:\{{[^}}]*\}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        assert found, gauge
        return not any(map(float, found))

    def resident(self) -> int:
        """Bytes of memory."""
        rss: int = self._process.memory_info().rss
        return rss

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_original(directory, bos=True, context=2048)
    (directory / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    return directory


@pytest.fixture
def engine(tiny: Path, tmp_path: Path, lend_library: Callable[[Path], None]) -> Iterator[Program]:
    """An engine by itself. Not in float32: PyTorch's products then keep memory for every shape that they have seen."""
    lend_library(tmp_path)
    log, environ = tmp_path / "engine.log", {"SLURMINFER_API_KEY": KEY, "SLURMINFER_HOME": str(tmp_path)}
    words = ["--model", tiny, "--dtype", "bfloat16", "--kv-cache-gib", "0.02", "--port", "0", "--threads", "1"]
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurminfer.nodes.native", *map(str, words)],
            stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environ},
        )  # fmt: skip
    try:
        eventually(lambda: "listening on" in log.read_text(encoding="utf-8"), "it listens")
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))[0])
        with closing(Program(process.pid, port, KEY, log)) as program:
            eventually(lambda: program.get("/health").status_code == 200, "the model is loaded")
            yield program
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def router(tiny: Path, tmp_path: Path, lend_library: Callable[[Path], None]) -> Iterator[Program]:
    """The router of a local deployment of two workers."""
    home = tmp_path / "home"
    lend_library(home)
    spec = tmp_path / "spec.toml"
    spec.write_text(_SPEC.format(model=tiny), encoding="utf-8")
    environ = {**os.environ, "SLURMINFER_HOME": str(home)}

    def slurminfer(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "slurminfer", *words], env=environ, check=True, timeout=200)

    slurminfer("serve", str(spec), "--local", "--wait")
    try:
        run = RunDirectory(home / "runs" / "storm")
        record = run.read_router()
        assert record is not None and record.url is not None
        log = run.logs_of("router") / "process.log"
        with closing(Program(record.pid, int(record.url.rpartition(":")[2]), run.key(), log)) as program:
            yield program
    finally:
        slurminfer("stop", "storm")
