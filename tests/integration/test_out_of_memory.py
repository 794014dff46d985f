"""An engine that the kernel kills in the middle of a batch, because the memory of its job is full."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..support.cgroup import Cgroup, limited_cgroup
from ..support.waiting import eventually
from .conftest import User
from .deployments import ended

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.network]

ROWS, TOKENS = 24, 16
SPEC = """
name = "full"
[model]
path = "demo"
dtype = "float32"
context_length = 256
[[pool]]
name = "w"
workers = 2
setup = ["echo $$ > {procs}", "echo 1000 > /proc/self/oom_score_adj"]
extra_args = ["--kv-cache-gib", "0.1"]
[router]
port = 0
"""
# A program of the same job that takes what is left. The kernel spares it by the scores of the others, and of these an
# engine is the largest.
GREEDY = """
import sys
from pathlib import Path
Path(sys.argv[1]).write_text("0")
taken, kills = [], Path(sys.argv[2])
before = kills.read_text()
while kills.read_text() == before:
    taken.append(bytearray(b"x") * (8 << 20))
"""


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    with limited_cgroup(3 << 30) as cgroup:
        yield cgroup


def answers(output: Path) -> list[tuple[int, str, str | None]]:
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return [(row["id"], row["generated_text"], row["error"]) for row in rows]


def settled(output: Path) -> int:
    """Rows in the ledger of a batch that runs."""
    return sum(path.read_bytes().count(b"\n") for path in Path(f"{output}.ledger").rglob("segments/*"))


def test_rows_of_an_engine_that_ran_out_of_memory_are_done_by_the_others(cgroup: Cgroup, user: User, tmp_path: Path):
    spec, rows = tmp_path / "spec.toml", tmp_path / "rows.jsonl"
    spec.write_text(SPEC.format(procs=cgroup.procs))
    ask = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    rows.write_text("".join(json.dumps({"id": n, "prompt": f"The number {n} is", **ask}) + "\n" for n in range(ROWS)))
    user.ok("serve", spec, "--local", "--wait")
    eventually(lambda: [worker["state"] for worker in user.status("full")["workers"]] == ["ready"] * 2)

    calm, killed = tmp_path / "calm.jsonl", tmp_path / "killed.jsonl"
    user.ok("batch", rows, calm, "--run", "full", "--concurrency", "8")
    assert cgroup.kills == 0
    with ThreadPoolExecutor() as pool:
        batch = pool.submit(user.ok, "batch", rows, killed, "--run", "full", "--concurrency", "8")
        eventually(lambda: settled(killed) >= 4, "some rows have been answered")
        subprocess.run([sys.executable, "-c", GREEDY, cgroup.procs, cgroup.path / cgroup.events], check=True)
        assert not batch.done() and settled(killed) < ROWS, "it was in the middle"
        batch.result()
    assert cgroup.kills == 1
    assert answers(killed) == answers(calm)
    assert [(number, error) for number, _, error in answers(calm)] == [(number, None) for number in range(ROWS)]

    lost = eventually(lambda: ended(user, "full", "w-0") or ended(user, "full", "w-1"), "the controller has noted it")
    assert "the kernel killed a process of the engine" in lost["cause"], lost
    assert "3.00 GiB" in lost["cause"] and "`mem`" in lost["advice"], lost
