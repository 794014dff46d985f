"""The life of an engine process: how it starts, what it refuses, how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import psutil
import pytest

from ....support.forking import ForkedCode

pytestmark = pytest.mark.process

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}


def _run(command, *arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


def _refused(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line of an orderly refusal."""
    assert done.returncode == code, done
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_http_answers_before_pytorch_is_imported():
    check = "import sys, slurminfer.nodes.native.service; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "set()\n"


def test_help_shows_the_options_with_their_values(command):
    done = _run(command, "--help")
    assert done.returncode == 0
    assert "--max-batch-tokens" in done.stdout
    assert "{auto,bfloat16,float16,float32}" in done.stdout


def test_it_says_503_while_the_model_is_loading_and_then_200(starting, model_directory, wait_until):
    with starting("--model", str(model_directory)) as server:
        first = httpx.get(f"{server.url}/health")
        assert (first.status_code, first.json()["error"]["message"]) == (503, "the model is loading")
        assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT).headers["Retry-After"]
        wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200, "health")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_told_to_end_it_finishes_what_is_in_flight(forking, model_directory, wait_until):
    with forking("--model", str(model_directory), "--dtype", "float32") as server:
        wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200, "health")
        body = {**CHAT, "stream": True, "max_tokens": 300}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"length"' in rest[-2]
        assert server.process.wait(10) == 0


def test_told_to_end_while_loading_it_ends(starting, model_directory):
    with starting("--model", str(model_directory)) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0


def test_a_port_that_is_taken_is_refused_in_one_line(command, model_directory):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = _refused(_run(command, "--model", str(model_directory), "--port", port))
    assert line == f"error: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_it_answers_on_a_unix_socket_and_opens_no_port(command, model_directory, tmp_path, wait_until):
    tmp_path.chmod(0o700)
    path = tmp_path / "engine"
    words = [*command, "--model", str(model_directory), "--uds", str(path), "--threads", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on unix:{path}, loading tiny\n"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://engine") as client:
            wait_until(lambda: client.get("/health").status_code == 200, "health")
            answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "fox", "max_tokens": 2})
        sockets = psutil.Process(process.pid).net_connections("tcp")
        process.send_signal(signal.SIGTERM)
    assert answer.json()["usage"]["completion_tokens"] <= 2
    assert sockets == []
    assert (process.returncode, path.exists()) == (0, False)


def test_a_model_that_is_not_there_is_refused_in_one_line(command, tmp_path):
    assert str(tmp_path / "nothing") in _refused(_run(command, "--model", str(tmp_path / "nothing"), "--port", "0"))
    assert "tokenizer.json" in _refused(_run(command, "--model", str(tmp_path), "--port", "0"))


def test_options_that_cannot_be_met_are_refused_in_one_line(command, model_directory):
    line = _refused(_run(command, "--model", str(model_directory), "--max-batch-tokens", "8"), code=2)
    assert line.startswith("error: max_batch_tokens = 8: expected at least max_running_requests = 64")
    assert "block_size = 0" in _refused(_run(command, "--model", str(model_directory), "--block-size", "0"), code=2)


@pytest.mark.parametrize("damage", ["tokenizer", "weights", "architecture"])
def test_a_damaged_model_is_refused_in_one_line(command, model_directory, tmp_path, damage):
    copy = tmp_path / "damaged"
    shutil.copytree(model_directory, copy)
    if damage == "tokenizer":
        (copy / "tokenizer.json").write_text('{"model": ')
    elif damage == "weights":
        os.truncate(copy / "model.safetensors", 1000)
    else:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "architectures": ["OtherForCausalLM"]}))
    line = _refused(_run(command, "--model", str(copy), "--port", "0"))
    assert {"tokenizer": "tokenizer.json", "weights": "model.safetensors", "architecture": "Other"}[damage] in line


BROKEN = """
import sys
from pathlib import Path
from slurminfer.core.errors import SlurminferError
from slurminfer.nodes.native import service
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.options import EngineOptions, ServerOptions

class Broken:
    vocab_size, context_length, block_size, num_blocks = 320, 100, 4, 100
    compiled, communication_s, depth = False, 0.0, 1
    def begin(self, chunks):
        raise RuntimeError("the model broke")

service.load = lambda options: EngineCore(Broken(), options)
try:
    service.serve(EngineOptions(model=Path(sys.argv[1])), ServerOptions(port=0, served_model_name="tiny"))
except SlurminferError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_raises_fails_all_requests_and_ends_the_process(model_directory, stream, tmp_path, wait_until):
    log = tmp_path / "log"
    process = ForkedCode(BROKEN, [str(model_directory)], os.environ, log)
    wait_until(lambda: "ready" in log.read_text(encoding="utf-8"), "it is ready")
    url = log.read_text(encoding="utf-8").split()[2].rstrip(",")
    answer = httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "stream": stream}, timeout=30)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert process.wait(20) == 1
    assert "the engine has failed: RuntimeError('the model broke')" in log.read_text(encoding="utf-8")
