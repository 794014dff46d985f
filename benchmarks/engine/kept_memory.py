"""What stays in the memory of an engine after large requests, beside its weights and KV cache.

    python -m benchmarks.engine.kept_memory [MODEL]

Starts an engine with a small KV cache and prints its resident memory after each kind of request, three times each.
MALLOC_ARENA_MAX in the environment goes to the engine.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from slurminfer.core.machine.readings import resident_bytes
from slurminfer.quant.models import resolve

_ROUNDS = 3
_CHAT = "/v1/chat/completions"


def _schema(number: int) -> dict[str, Any]:
    names = [f"p{number}_{index}" for index in range(300)]
    return {"properties": {name: {"type": "string", "pattern": "^[a-z]*$"} for name in names}, "required": names[:2]}


def _kinds(number: int) -> Mapping[str, list[tuple[str, dict[str, Any]]]]:
    """Requests by name: path and fields."""
    message = {"role": "user", "content": "Hello"}
    return {
        "bodies of 12 MB": [(_CHAT, {"messages": [{**message, "content": "x" * 3000}] * 4000})],
        "40 schemas of 20 KB": [
            (_CHAT, {"messages": [message], "max_tokens": 2, "guided_json": _schema(40 * number + index)})
            for index in range(40)
        ],
        "30,000 log-probabilities": [("/v1/completions", {"prompt": "A", "n": 48, "logprobs": 20, "max_tokens": 30})],
    }


@contextmanager
def _engine(model: Path) -> Iterator[tuple[str, Path]]:
    """An engine's URL, and the file that tells its memory."""
    argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(model), "--served-model-name", "m"]
    argv += ["--port", "0", "--kv-cache-gib", "0.1", "--context-length", "4000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        try:
            while "ready" not in process.stdout.readline():
                pass
            assert found is not None
            yield found[0], Path(f"/proc/{process.pid}/status")
        finally:
            process.terminate()


def main() -> None:
    """Print resident memory as requests come."""
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else resolve("demo")
    print(f"MALLOC_ARENA_MAX: {os.environ.get('MALLOC_ARENA_MAX', 'not set')}")
    with _engine(model) as (url, status):
        prompts = [f"{number} some words " * 60 for number in range(40)]  # use all of the KV cache
        _send(url, "/v1/completions", {"prompt": prompts, "max_tokens": 2})
        _send(url, _CHAT, {"messages": [{"role": "user", "content": "Hello"}], "guided_choice": ["a"]})
        print(f"MiB at the beginning: {resident_bytes(status) / 2**20:.0f}", flush=True)
        for name in _kinds(0):
            for number in range(_ROUNDS):
                for path, fields in _kinds(number)[name]:
                    _send(url, path, fields)
            print(f"after {name}: {resident_bytes(status) / 2**20:.0f}", flush=True)


def _send(url: str, path: str, fields: Mapping[str, Any]) -> None:
    answer = httpx.post(url + path, json={"model": "m", **fields}, timeout=600)
    assert answer.status_code in (200, 400), answer.text


if __name__ == "__main__":
    main()
