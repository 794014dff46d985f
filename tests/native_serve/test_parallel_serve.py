"""An engine of several processes: it answers as one does, and ends as a whole."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from slurminfer.nodes.native.fused import library

needs_compiler = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
PROMPTS = ["The quick brown fox", "Blocks of keys and values", "hi", "a b c a b c a b c a b"]


def complete(url: str, prompt: str, **options) -> str:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": True, **options}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@pytest.fixture
def ready(starting, model_directory, wait_until):
    def ready(*arguments):
        server = starting("--model", str(model_directory), "--dtype", "float32", *arguments)
        return server

    return ready


def wait_for(server, wait_until) -> None:
    wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200, "health")


@pytest.mark.parametrize(
    "layout",
    [
        ("--tensor-parallel", "2"),
        ("--tensor-parallel", "2", "--pipeline-parallel", "2", "--speculative", "ngram"),
    ],
)
def test_it_answers_as_one_process_does_and_leaves_nobody_behind(ready, wait_until, layout):
    with ready() as one:
        wait_for(one, wait_until)
        expected = [complete(one.url, prompt) for prompt in PROMPTS]
    with ready(*layout) as several:
        wait_for(several, wait_until)
        others = children(several.process.pid)
        assert len(others) == {2: 1, 6: 3}[len(layout)]
        assert [complete(several.url, prompt) for prompt in PROMPTS] == expected
        assert [complete(several.url, prompt) for prompt in PROMPTS] == expected  # out of the prefix cache
        several.process.send_signal(signal.SIGTERM)
        assert several.process.wait(10) == 0
        wait_until(lambda: not any(map(is_there, others)), "the other ranks' end")


@pytest.mark.parametrize(
    ("busy", "options"),
    [
        (False, ()),
        (True, ()),
        pytest.param(True, ("--dtype", "bfloat16", "--kernels", "compiled"), marks=needs_compiler),
    ],
)
def test_a_rank_that_is_killed_ends_them_all_at_once_and_is_named(ready, wait_until, capfd, busy, options):
    with ready("--tensor-parallel", "2", *options) as server:
        wait_for(server, wait_until)
        [other] = children(server.process.pid)
        if busy:
            body = {"model": "tiny", "prompt": "hi", "max_tokens": 3000, "ignore_eos": True, "stream": True}
            with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
                lines = answer.iter_lines()
                for _ in range(4):
                    next(lines)
                os.kill(other, signal.SIGKILL)
                began = time.monotonic()
                rest = [line for line in lines if line]
            assert "the engine has failed" in rest[-1]
            assert time.monotonic() - began < 3
        else:
            os.kill(other, signal.SIGKILL)
            began = time.monotonic()
        assert server.process.wait(15) == 1
        assert time.monotonic() - began < 10
    assert "rank 1 on " in capfd.readouterr().err


def test_when_rank_0_is_killed_the_others_end(ready, wait_until):
    with ready("--tensor-parallel", "2") as server:
        wait_for(server, wait_until)
        others = children(server.process.pid)
        server.process.kill()
        wait_until(lambda: not any(map(is_there, others)), "the other ranks' end", 10)


def test_a_rank_that_cannot_load_ends_them_all(starting, model_directory, wait_until, tmp_path):
    """Its part of the weights is there, but no memory for it."""
    with starting("--model", str(model_directory), "--tensor-parallel", "2", "--kv-cache-gib", "0.0001") as server:
        assert server.process.wait(60) == 1


def test_layouts_that_cannot_be_are_refused_in_one_line(starting, model_directory):
    with starting("--model", str(model_directory), "--tensor-parallel", "5") as server:
        assert server.process.wait(60) == 1
