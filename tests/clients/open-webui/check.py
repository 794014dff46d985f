"""Open WebUI: its server finds the model and streams answers, as its page asks for them."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tried import HERE, MODEL, expect, finish, tried

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}], "params": {}}
SHORT = {"max_tokens": 24, "temperature": 0}


@contextmanager
def server() -> Iterator[httpx.Client]:
    """Open WebUI by the recipe, and a client that has signed up."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = Path("data").resolve()
    data.mkdir()
    env = os.environ | {"PORT": str(port), "DATA_DIR": str(data), "WEBUI_SECRET_KEY": "only-here"}
    argv = ["bash", "-euo", "pipefail", str(HERE / "recipe.sh")]
    process = subprocess.Popen(argv, env=env, stdout=2, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            wait_for(client, process)
            user = {"name": "a", "email": "a@example.org", "password": "only-here-4711"}
            token = client.post("/api/v1/auths/signup", json=user).json()["token"]
            client.headers["Authorization"] = f"Bearer {token}"
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError("Open WebUI does not start")


with server() as page:

    @tried("the recipe, and the list of models")
    def _():
        found = [model["id"] for model in page.get("/api/models").json()["data"]]
        expect(MODEL in found, found)

    @tried("chat, streamed")
    def _():
        with page.stream("POST", "/api/chat/completions", json=ASKED | SHORT | {"stream": True}) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
        parts = [
            choice["delta"].get("content") or "" for line in lines for choice in json.loads(line).get("choices", [])
        ]
        expect("Paris" in "".join(parts) and len(parts) > 3, lines)

    @tried("chat")
    def _():
        said = page.post("/api/chat/completions", json=ASKED | SHORT | {"stream": False}).json()
        expect("Paris" in said["choices"][0]["message"]["content"], said)


finish()
