"""One model over two nodes of a real Slurm: the native engine's ranks, real weights, real tokens."""

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
cpus_per_task = 1
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
    next(process for process in found if process.cmdline()[process.cmdline().index("--node-rank") + 1] == "1").kill()
    deadline = time.monotonic() + 30
    while (worker := cluster_user.status("two")["workers"][0])["scheduler"] in ("RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, worker
        time.sleep(0.2)
    assert worker["scheduler"] == "FAILED"
    assert "rank 1 on n" in worker["reason"], worker
    assert ranks(cluster_user.home) == []
