"""Our server and vLLM's, each with all CPUs, one after the other."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from slurminfer.core.machine.libraries import preload

from .tenants import CONTEXT, MODEL

_START_S = 600.0
_END_S = 20.0


@contextmanager
def ours(model: Path, log: Path, *flags: str) -> Iterator[str]:
    """The URL of our server, in bfloat16 as vLLM computes."""
    argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(model), "--served-model-name", MODEL]
    argv += ["--host", "127.0.0.1", "--port", str(port := _free_port()), "--dtype", "bfloat16"]
    argv += ["--kv-cache-gib", "1", "--context-length", str(CONTEXT), *flags]
    with _running(argv, {}, log, port) as url:
        yield url


@contextmanager
def vllm(python: str, model: Path, log: Path) -> Iterator[str]:
    """The URL of vLLM's server. Eager: compiling takes minutes on two cores, and its steps take about as long."""
    argv = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", MODEL]
    argv += ["--host", "127.0.0.1", "--port", str(port := _free_port()), "--dtype", "bfloat16"]
    argv += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "64", "--max-logprobs", "20", "--enforce-eager"]
    with _running(argv, {"VLLM_CPU_KVCACHE_SPACE": "1", **preload(python)}, log, port) as url:
        yield url


@contextmanager
def _running(argv: list[str], env: dict[str, str], log: Path, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env={**os.environ, **env}, start_new_session=True)
    try:
        until = time.monotonic() + _START_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"does not start: {log.read_text(encoding='utf-8', errors='replace')[-1500:]}")
            time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def memory_mib(url: str) -> float | None:
    """What our server's process has in memory, as its metrics say; None for another server."""
    found = re.search(r"^process_resident_memory_bytes (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(found[1]) / 2**20 if found else None
