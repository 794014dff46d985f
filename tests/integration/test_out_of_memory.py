"""An engine that the kernel kills in the middle of a batch, because the memory of its job is full."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..support.cgroup import Cgroup, limited_cgroup
from ..support.waiting import eventually
from .conftest import User
from .deployments import ended

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.network]

LIMIT = 3 << 29
ROWS, TOKENS, TOO_LONG = 20, 10, 3
SPEC = """
name = "full"
[model]
path = "demo"
dtype = "float32"
context_length = 256
[[pool]]
name = "tight"
setup = ["echo $$ > {procs}"]
python = "{python}"
extra_args = ["--kv-cache-gib", "0.1"]
[[pool]]
name = "roomy"
extra_args = ["--kv-cache-gib", "0.1"]
[router]
port = 0
"""
# So that the kernel kills the engine before the other one.
FIRST = f'#!/bin/sh\necho 1000 > /proc/self/oom_score_adj\nexec {sys.executable} "$@"\n'
# A program of the same job that takes most of what is left, and the rest when it is told to.
GREEDY = """
import mmap, sys
from pathlib import Path
cgroup, limit = Path(sys.argv[1]), int(sys.argv[2])
(cgroup / "cgroup.procs").write_text("0")
taken, kills = [], cgroup / sys.argv[3]
def take():
    taken.append(mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
def in_use():
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    return int(stat.get("total_rss") or stat["anon"])
while in_use() < limit - (160 << 20):
    take()
print("nearly full", flush=True)
sys.stdin.readline()
before = kills.read_text()
while kills.read_text() == before:
    take()
"""


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    with limited_cgroup(LIMIT) as cgroup:
        yield cgroup


@contextmanager
def greedy(cgroup: Cgroup) -> Iterator[Callable[[], None]]:
    """Takes nearly all memory of the cgroup; the rest when called, until the kernel has killed somebody for it."""
    argv = [sys.executable, "-c", GREEDY, str(cgroup.path), str(LIMIT), cgroup.events.name]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "nearly full\n"

        def fill() -> None:
            program.communicate("now\n")
            assert program.returncode in (0, -signal.SIGKILL)  # the kernel may kill it as well

        try:
            yield fill
        finally:
            program.kill()


def answers(output: Path) -> list[tuple[int, Any, Any]]:
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return [(row["id"], row["generated_text"], row["error"]) for row in rows]


def settled(output: Path) -> int:
    """Rows in the ledger of a batch that runs."""
    return sum(path.read_bytes().count(b"\n") for path in Path(f"{output}.ledger").rglob("segments/*"))


def test_rows_of_an_engine_that_ran_out_of_memory_are_done_by_the_others(cgroup: Cgroup, user: User, tmp_path: Path):
    spec, rows = tmp_path / "spec.toml", tmp_path / "rows.jsonl"
    python = tmp_path / "python"
    python.write_text(FIRST)
    python.chmod(0o755)
    spec.write_text(SPEC.format(procs=cgroup.procs, python=python))
    ask = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    prompts = [f"The number {n} is" * (200 if n == TOO_LONG else 1) for n in range(ROWS)]
    rows.write_text("".join(json.dumps({"id": n, "prompt": prompts[n], **ask}) + "\n" for n in range(ROWS)))
    user.ok("serve", spec, "--local", "--wait")
    eventually(lambda: [worker["state"] for worker in user.status("full")["workers"]] == ["ready"] * 2)

    calm, killed = tmp_path / "calm.jsonl", tmp_path / "killed.jsonl"
    batch = ("--run", "full", "--concurrency", "8")
    assert user.slurminfer("batch", rows, calm, *batch).returncode == 1
    assert cgroup.kills == 0
    with ThreadPoolExecutor() as pool, greedy(cgroup) as fill:
        disturbed = pool.submit(user.slurminfer, "batch", rows, killed, *batch)
        eventually(lambda: settled(killed) >= 2, "some rows have been answered")
        fill()
        assert not disturbed.done() and settled(killed) < ROWS, "it was in the middle"
        assert disturbed.result().returncode == 1
    assert cgroup.kills
    assert answers(killed) == answers(calm)
    errors = [error for _, _, error in answers(calm)]
    assert "maximum context length is 256 tokens" in errors.pop(TOO_LONG)
    assert errors == [None] * (ROWS - 1)

    lost = eventually(lambda: ended(user, "full", "tight-0"), "the controller has noted it")
    assert "the kernel killed a process of the engine" in lost["cause"], lost
    assert "1.50 GiB" in lost["cause"] and "`mem`" in lost["advice"], lost
