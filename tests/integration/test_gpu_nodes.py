"""Jobs of a real Slurm on real GPUs: one model over two nodes, each with half of this machine's GPUs.

SLURMINFER_TEST_SGLANG names a Python that has SGLang for CUDA; without it, that case is skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurminfer.core.gpus import device_files
from slurminfer.slurm.sandbox import Sandbox

from .over_nodes import PROMPTS, answers, check_native

SGLANG = os.environ.get("SLURMINFER_TEST_SGLANG")
_NATIVE = """
nodes = {nodes}
{layout}
gpus_per_node = 1
cpus_per_task = 4
extra_args = ["--kv-cache-gib", "{kv_cache_gib}"]
"""
# Nodes that are one machine look to SGLang like one that could reach all GPUs, which they cannot.
_SGLANG = """
engine = "sglang"
nodes = {nodes}
pipeline_parallel = {nodes}
gpus_per_node = 1
cpus_per_task = 8
python = "{python}"
extra_args = [
    "--attention-backend", "triton", "--sampling-backend", "pytorch", "--mem-fraction-static", "0.3",
    "--disable-cuda-graph", "--disable-custom-all-reduce",
]
"""

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.network,
    pytest.mark.timeout(900),
    pytest.mark.skipif(len(device_files()) < 2, reason="needs two GPUs"),
]


@pytest.fixture(scope="session")
def sandbox(sandbox_directory: Path) -> Iterator[Sandbox]:
    """In place of the one whose nodes pretend to have GPUs."""
    box = Sandbox(sandbox_directory / "gpus", nodes=2, real_gpus=True)
    box.start()
    yield box
    box.stop()


def test_two_nodes_say_what_one_says_and_a_killed_rank_ends_the_job_by_name(cluster_user, shared):
    def pool(nodes: int, layout: str, kv_cache_gib: float) -> str:
        return _NATIVE.format(nodes=nodes, layout=layout, kv_cache_gib=kv_cache_gib)

    check_native(cluster_user, shared, pool)


@pytest.mark.skipif(SGLANG is None, reason="SLURMINFER_TEST_SGLANG names no Python that has SGLang")
def test_sglang_over_two_nodes_says_what_it_says_on_one(cluster_user, shared):
    def said(name: str, nodes: int) -> list[str]:
        pool = _SGLANG.format(nodes=nodes, python=SGLANG)
        # Its kernels know no float32.
        return answers(cluster_user, shared, name, pool, dtype="bfloat16", prompts=PROMPTS[:3], start_s=400)

    alone = said("alone", 1)
    cluster_user.ok("stop", "alone")
    assert said("two", 2) == alone
