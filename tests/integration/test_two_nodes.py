"""One model over two nodes of a real Slurm: the native engine's ranks, real weights, real tokens."""

import re
import time

import psutil
import pytest

from .conftest import User

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(300)]

SPEC = """
name = "{name}"
[model]
path = "demo"
dtype = "float32"
context_length = 512
[[pool]]
name = "cpu"
nodes = {nodes}
{layout}
cpus_per_task = 2
extra_args = ["--kv-cache-gib", "{kv_cache_gib}"]
[router]
port = 0
"""
PROMPTS = ["The capital of France is", "One, two, three,", "def fibonacci(n):", "A rose is a rose. " * 60]
LAYOUTS = {  # and GiB of each rank's KV cache: 0.013 hold 303 tokens, less than the last prompt has
    "tensor_parallel = 2": 0.3,
    "sequence_parallel = 2": 0.013,
    "pipeline_parallel = 2": 0.3,
}


def answers(user: User, shared, name: str, nodes: int, layout: str, kv_cache_gib: float = 0.3) -> list[str]:
    spec = shared / f"{name}.toml"
    spec.write_text(SPEC.format(name=name, nodes=nodes, layout=layout, kv_cache_gib=kv_cache_gib))
    user.ok("serve", spec, "--wait")
    client = user.client(name)
    found = []
    for prompt in PROMPTS:
        said = client.completions.create(
            model="SmolLM2-135M-Instruct", prompt=prompt, max_tokens=24, temperature=0, extra_body={"ignore_eos": True}
        )
        found.append(said.choices[0].text)
    return found


def ranks(home) -> list[psutil.Process]:
    """Of all nodes: those of the sandbox are on this machine."""
    return [process for process in psutil.process_iter() if is_rank(process, str(home))]


def is_rank(process: psutil.Process, home: str) -> bool:
    try:
        words = process.cmdline()
        return {"slurminfer.nodes.native", "--node-rank"} <= set(words) and process.environ()["SLURMINFER_HOME"] == home
    except (psutil.Error, KeyError):
        return False


def value(process: psutil.Process, flag: str) -> str:
    """Of a command line's flag; empty if it is not there."""
    words = process.cmdline()
    return words[words.index(flag) + 1] if flag in words else ""


def reason_of_failure(user: User, name: str) -> str:
    deadline = time.monotonic() + 30
    while (worker := user.status(name)["workers"][0])["scheduler"] in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, worker
        time.sleep(0.2)
    assert worker["scheduler"] == "FAILED"
    reason: str = worker["reason"]
    return reason


def test_two_nodes_say_what_one_says_and_a_killed_rank_ends_the_job_by_name(cluster_user, shared):
    alone = answers(cluster_user, shared, "alone", 1, "")
    cluster_user.ok("stop", "alone")
    for layout, kv_cache_gib in LAYOUTS.items():
        assert answers(cluster_user, shared, "two", 2, layout, kv_cache_gib) == alone
        found = ranks(cluster_user.home)
        assert len(found) == 2
        if layout != "pipeline_parallel = 2":
            cluster_user.ok("stop", "two")
            assert ranks(cluster_user.home) == []
    next(process for process in found if value(process, "--node-rank") == "1").kill()
    assert "rank 1 on n" in reason_of_failure(cluster_user, "two")
    assert ranks(cluster_user.home) == []


def test_a_killed_child_of_another_node_is_the_reason_with_its_signal(cluster_user, shared):
    answers(cluster_user, shared, "four", 2, "tensor_parallel = 2\npipeline_parallel = 2")
    [child] = [
        process
        for process in ranks(cluster_user.home)
        if value(process, "--node-rank") == "1" and value(process, "--local-rank") == "1"
    ]
    child.kill()
    reason = reason_of_failure(cluster_user, "four")
    assert re.search(r"rank 3 on n\d is gone: killed by SIGKILL \(out of memory\?\)", reason), reason
    assert ranks(cluster_user.home) == []
