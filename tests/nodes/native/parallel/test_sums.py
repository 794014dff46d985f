"""Sums over ranks in processes of their own, through shared memory: the same bits for all, whoever is late."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import make_memory
from slurminfer.nodes.native.options import RANK_SECRET_VARIABLE

from ....support.addresses import free_address
from ....support.waiting import cpu_seconds, wait_until_idle
from . import sums
from .processes import run_ranks
from .sums import share_of

pytestmark = [pytest.mark.process, pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")]
DTYPES = ("float32", "bfloat16", "float16")
SLOT = 1 << 16
SIZES = [1, 15, 16, 17, 576, 4095, 4096, 4097, 1, SLOT, SLOT + 1, 3 * SLOT + 5, 2]


def start(
    layout: dict[str, int], *words: str, cpus: Sequence[int] = (), env: Mapping[str, str] | None = None
) -> "list[subprocess.Popen[str]]":
    """All ranks of one node, on these CPUs only if some are given, with `env` beside what there is."""
    keep = ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []
    own = {**os.environ, **(env or {}), RANK_SECRET_VARIABLE: "a worker's"}
    memory, pipe = make_memory(own), subprocess.PIPE
    options: dict[str, Any] = {"env": own, "pass_fds": (memory,), "stdin": pipe, "stdout": pipe, "stderr": pipe}
    try:
        commands = [[*keep, sys.executable, sums.__file__, *argv] for argv in argvs(layout, *words)]
        return [subprocess.Popen(command, text=True, **options) for command in commands]
    finally:
        os.close(memory)


def argvs(layout: dict[str, int], *words: str) -> list[list[str]]:
    """Arguments of sums.py, for each rank of a layout."""
    rendezvous = free_address()
    names = ("tensor_parallel", "sequence_parallel", "pipeline_parallel")
    here = math.prod(layout.get(name, 1) for name in names) // layout.get("nodes", 1)
    places = [{"node_rank": node, "local_rank": rank} for node in range(layout.get("nodes", 1)) for rank in range(here)]
    return [[json.dumps(layout | place | {"rendezvous": rendezvous}), *words] for place in places]


def found_sums(
    out: Path, dtypes: Sequence[str] = ("float32",), cpus: Sequence[int] = (), **layout: int
) -> list[dict[str, list[torch.Tensor]]]:
    """What each rank has found, of all SIZES, by dtype."""
    ranks = argvs(layout, json.dumps(SIZES), ",".join(dtypes), str(out))
    said = run_ranks(sums.main, ranks, out, cpus, layout.get("nodes", 1))
    assert not any("slower" in words for words in said), said
    return [torch.load(out / f"{rank}.pt") for rank in range(len(ranks))]


def in_order(ranks: Sequence[int], size: int, dtype: torch.dtype) -> torch.Tensor:
    """Of some ranks' shares: in float32, one after the other, rounded once."""
    total = share_of(ranks[0], size).to(dtype).float()
    for rank in ranks[1:]:
        total += share_of(rank, size).to(dtype).float()
    return total.to(dtype)


@pytest.mark.parametrize(("ranks", "cpus"), [(2, ()), (2, (0,)), (3, ()), (4, (0,))])
def test_all_ranks_have_the_sum_in_the_order_of_ranks(tmp_path, ranks, cpus):
    found = found_sums(tmp_path, DTYPES, cpus, tensor_parallel=ranks)
    for dtype in DTYPES:
        for index, size in enumerate(SIZES):
            expected = in_order(range(ranks), size, getattr(torch, dtype))
            for rank in range(ranks):
                assert torch.equal(found[rank][dtype][index], expected), (dtype, rank, size)


@pytest.mark.parametrize(
    ("layout", "stages"),
    [
        ({"tensor_parallel": 4, "nodes": 2}, [[[0, 1], [2, 3]]]),
        ({"tensor_parallel": 3, "pipeline_parallel": 2, "nodes": 3}, [[[0, 1], [2]], [[3], [4, 5]]]),
        ({"tensor_parallel": 2, "nodes": 2}, [[[0], [1]]]),
        ({"tensor_parallel": 2, "pipeline_parallel": 2, "nodes": 2}, [[[0, 1]], [[2, 3]]]),
    ],
)
def test_a_stage_that_spans_nodes_sums_on_each_and_then_between_them(tmp_path, layout, stages):
    """All on this machine; nodes are what the layout says."""
    found = found_sums(tmp_path, **layout)
    for stage in stages:
        for index, size in enumerate(SIZES):
            parts = [in_order(node, size, torch.float32) for node in stage]
            expected = parts[0] + parts[1] if len(parts) > 1 else parts[0]
            for rank in (rank for node in stage for rank in node):
                assert torch.equal(found[rank]["float32"][index], expected), (rank, size)


def test_without_a_compiler_they_sum_over_gloo_and_say_so(tmp_path):
    layout, nothing = {"tensor_parallel": 2}, {"PATH": str(tmp_path), "CXX": "g++"}
    ranks = start(layout, json.dumps([576]), "float32", str(tmp_path), env=nothing)
    for process in ranks:
        assert "slower without shared memory" in process.communicate(timeout=120)[1]
    for rank in range(2):
        [found] = torch.load(tmp_path / f"{rank}.pt")["float32"]
        assert torch.equal(found, in_order(range(2), 576, torch.float32))


def test_who_waits_for_a_rank_that_is_gone_is_let_go():
    ranks = start({"tensor_parallel": 2}, "lost")
    said = [line_of(ranks[0]), line_of(ranks[0])]
    assert said == ["waiting", "another rank of this node is gone"]
    end(ranks)


def test_nothing_is_left_of_ranks_that_are_killed():
    """Their memory has no name in a file system, and nobody keeps it once they are gone."""
    ranks = start({"tensor_parallel": 3}, "forever")
    try:
        assert [line_of(rank) for rank in ranks] == ["summing"] * 3
        shared = set.intersection(*(shared_memory(rank.pid) for rank in ranks))
        assert [path for path, _ in shared] == ["/memfd:slurminfer (deleted)"]
    finally:
        end(ranks)
    assert not shared & {each for pid in psutil.pids() for each in shared_memory(pid)}


@pytest.mark.parametrize("apart", [True, False])
def test_who_waits_long_does_not_keep_a_cpu_busy(apart):
    """One rank is stopped; the others fall asleep, be it on CPUs of their own or on one."""
    ranks = start({"tensor_parallel": 2}, "forever", cpus=() if apart else (0,))
    assert [line_of(rank) for rank in ranks] == ["summing"] * 2
    ranks[1].send_signal(signal.SIGSTOP)
    wait_until_idle(ranks[0].pid)
    before = cpu_seconds(ranks[0].pid)
    time.sleep(1)
    assert cpu_seconds(ranks[0].pid) - before < 0.2
    ranks[1].send_signal(signal.SIGCONT)
    end(ranks)


def line_of(rank: "subprocess.Popen[str]") -> str:
    assert rank.stdout is not None
    return rank.stdout.readline().strip()


def end(ranks: "list[subprocess.Popen[str]]") -> None:
    for rank in ranks:
        rank.kill()
    for rank in ranks:
        rank.communicate()


def shared_memory(pid: int) -> set[tuple[str, int]]:
    """What a process has mapped to write into it together with others, as path and inode."""
    try:
        lines = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()]
    except OSError:  # it has ended, or is somebody else's
        return set()
    return {(line[5], int(line[4])) for line in lines if line[1] == "rw-s"}


# A row is 36 bytes: the many are more than one message holds.
@pytest.mark.parametrize(("rows", "nodes"), [([[2, 3, 0], [1, 0, 4], [1_000_000, 2, 1]], 1), ([[1, 2], [3, 4]], 2)])
def test_ranks_exchange_rows(tmp_path, rows, nodes):
    layout = {"tensor_parallel": 1, "sequence_parallel": len(rows), "nodes": nodes}
    run_ranks(sums.main, argvs(layout, "rows", json.dumps(rows), str(tmp_path)), tmp_path, nodes=nodes)
    for rank in range(len(rows)):
        found = torch.load(tmp_path / f"{rank}.pt")
        expected = [torch.full((line[rank], 9), 10.0 * source + rank) for source, line in enumerate(rows)]
        assert torch.equal(found, torch.cat(expected))
