"""NCCL meets over the ranks' store; its watchdogs use it from threads of their own."""

import queue
from collections.abc import Sequence
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import rank_secret
from slurminfer.nodes.native.model.parallel.rendezvous.store import RankStore

from .processes import run_ranks

pytestmark = [
    pytest.mark.process,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def main(argv: Sequence[str]) -> None:
    """The only rank: one GPU has room for one."""
    detector = FailureDetector("127.0.0.1:0", 0, rank_secret(), queue.SimpleQueue(), lambda _: None)
    store = RankStore(detector.ask, timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    group = dist.new_group(backend="nccl")
    x = torch.ones(4, device="cuda")
    for _ in range(10):
        dist.all_reduce(x, group=group)
    torch.cuda.synchronize()
    assert x.tolist() == [1.0] * 4
    assert store.num_keys() > 1
    dist.destroy_process_group()


def test_nccl_meets_over_the_store_of_the_ranks(tmp_path):
    run_ranks(main, [[]], tmp_path)
