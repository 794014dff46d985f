"""Which CPUs each rank of a node keeps to."""

import pytest

from slurminfer.core.errors import UsageError
from slurminfer.nodes.native.model.parallel.start import _shares
from slurminfer.nodes.native.options import ParallelOptions


def test_ranks_keep_to_the_cpus_that_they_are_told():
    place = ParallelOptions(tensor_parallel=2, rank_cpus="0-1,8|2-3")
    assert _shares(place) == [frozenset({0, 1, 8}), frozenset({2, 3})]


def test_cpus_must_be_of_the_ranks_of_this_node():
    ParallelOptions(tensor_parallel=4, nodes=2, rendezvous="h:1", rank_cpus="0|1")
    with pytest.raises(UsageError, match=r"rank_cpus = 0\|1\|2: expected CPUs of 2 ranks"):
        ParallelOptions(tensor_parallel=2, rank_cpus="0|1|2")
