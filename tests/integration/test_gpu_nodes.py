"""Jobs of a real Slurm on real GPUs: one model over two nodes, each with half of this machine's GPUs.

SLURMINFER_TEST_SGLANG names a Python that has SGLang for CUDA; without it, that case is skipped.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from slurminfer.core.machine.readings import device_files
from slurminfer.slurm.sandbox import Sandbox

from .deployments import complete, serve
from .over_nodes import check_native
from .rounding import agrees

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
    pytest.mark.gpu,
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


@pytest.fixture
def untied(demo_model: Path, shared: Path) -> Path:
    """The demo model with a head of its own: the last of SGLang's stages has none that is tied to the embeddings."""
    copy = shared / "untied"
    shutil.copytree(demo_model, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    (copy / "model.safetensors").chmod(0o644)  # for whom the jobs run
    return copy


@pytest.mark.skipif(SGLANG is None, reason="SLURMINFER_TEST_SGLANG names no Python that has SGLang")
def test_sglang_over_two_nodes_says_what_it_says_on_one(cluster_user, shared, untied):
    def start(name: str, nodes: int) -> None:
        pool = _SGLANG.format(nodes=nodes, python=SGLANG)
        # Its kernels know no float32.
        serve(cluster_user, shared, name, pool, model=untied, dtype="float16", start_s=400)

    start("alone", 1)
    alone = complete(cluster_user, "alone", logprobs=2)
    cluster_user.ok("stop", "alone")
    start("two", 2)
    two = complete(cluster_user, "two")
    assert all(agrees(said.text, expected) for said, expected in zip(two, alone, strict=True)), (two, alone)
