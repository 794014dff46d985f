"""One model over two nodes of a real Slurm: the native engine's ranks, real weights, real tokens."""

import re

import pytest

from ..support.demo_layers import write_first_layers
from .deployments import reason_of_failure, serve
from .over_nodes import LAYOUTS, answers, check_native, ranks, value

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(600)]

_POOL = """
nodes = {nodes}
{layout}
cpus_per_task = 2
extra_args = ["--kv-cache-gib", "{kv_cache_gib}"]
"""


def pool(nodes: int, layout: str, kv_cache_gib: float) -> str:
    return _POOL.format(nodes=nodes, layout=layout, kv_cache_gib=kv_cache_gib)


LAYERS, OF_DEMO = 6, 30
# Four ranks are two stages on two nodes.
TWO_RANKS = {"tensor_parallel = 2": 0.3, "sequence_parallel = 2": LAYOUTS["sequence_parallel = 2"] * LAYERS / OF_DEMO}


def test_two_nodes_say_what_one_says_and_a_killed_rank_ends_the_job_by_name(cluster_user, shared, demo_model):
    model = shared / "SmolLM2-135M-cut"
    write_first_layers(demo_model, model, LAYERS)
    alone = check_native(cluster_user, shared, pool, TWO_RANKS, model)
    serve(cluster_user, shared, "four", pool(2, "tensor_parallel = 2\npipeline_parallel = 2", 0.3), model=model)
    assert answers(cluster_user, "four") == alone
    found = ranks(cluster_user.home)
    [child] = [each for each in found if value(each, "--node-rank") == "1" and value(each, "--local-rank") == "1"]
    child.kill()
    reason = reason_of_failure(cluster_user, "four")
    assert re.search(r"rank 3 on n\d is gone: killed by SIGKILL \(out of memory\?\)", reason), reason
    assert not any(process.is_running() for process in found)
