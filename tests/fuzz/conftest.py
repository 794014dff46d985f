"""An engine and a router to be stormed, and what must be true of them afterwards."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from ..support.small_model import make_original
from ..support.waiting import eventually

KEY = "sk-fuzz"
_TEMPLATE = """\
{%- for message in messages %}{{- '<' + message.role + '>' + message.content | trim }}
{%- if message.tool_calls %}{{- message.tool_calls | tojson }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"""


class Program:
    """A program of ours that listens at a port of loopback."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
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

    def gauge(self, name: str) -> float:
        """The sum of a metric's samples."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        assert found, name
        return sum(map(float, found))

    def is_zero(self, name: str) -> bool:
        return self.gauge(name) == 0

    def resident(self) -> int:
        """Bytes of memory."""
        rss: int = psutil.Process(self.process.pid).memory_info().rss
        return rss

    def end(self) -> None:
        self._client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_original(directory, bos=True, context=2048)
    (directory / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    return directory


@pytest.fixture
def engine(tiny: Path, tmp_path: Path) -> Iterator[Program]:
    log = tmp_path / "engine.log"
    argv = ["--model", tiny, "--dtype", "float32", "--kv-cache-gib", "0.02", "--port", "0", "--threads", "1"]
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurminfer.nodes.native", *map(str, argv)],
            stdout=sink, stderr=subprocess.STDOUT, text=True, env={**os.environ, "SLURMINFER_API_KEY": KEY},
        )  # fmt: skip
    program = None
    try:
        eventually(lambda: "listening on" in log.read_text(encoding="utf-8"), "the engine listens")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))
        assert found
        program = Program(process, int(found[1]))
        eventually(lambda: program.get("/health").status_code == 200, "the model is loaded")
        yield program
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        program.end() if program else process.kill()
