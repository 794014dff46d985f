"""Which layouts of ranks on nodes are refused, and what is said instead."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import SpecError
from slurminfer.core.workers.layout import Fault, Layout, check_layout


def layout(tp=1, pp=1, nodes=1, gpus=0, cpus=1, sp=1) -> Layout:
    return Layout(
        tensor_parallel=tp, sequence_parallel=sp, pipeline_parallel=pp, gpus_per_node=gpus,
        cpus_per_task=cpus, nodes=nodes,
    )  # fmt: skip


def anything(layout: Layout) -> Fault | None:
    """The rule of an engine that computes every layout that any engine can."""
    return None


@pytest.mark.parametrize(
    ("works", "ranks", "per_node"),
    [
        (layout(), 1, 1),
        (layout(gpus=1), 1, 1),
        (layout(tp=2, cpus=2), 2, 2),
        (layout(tp=2, nodes=2), 2, 1),
        (layout(pp=2, nodes=2), 2, 1),
        (layout(tp=2, pp=2, nodes=2, cpus=2), 4, 2),
        (layout(tp=2, sp=3, pp=2, nodes=2, cpus=6), 12, 6),
        (layout(sp=4, nodes=2, gpus=2), 4, 2),
        (layout(tp=2, pp=3, nodes=2, cpus=3), 6, 3),  # the second stage is on both nodes
        (layout(tp=16, nodes=2, gpus=8), 16, 8),
    ],
)
def test_layouts_that_work(works, ranks, per_node):
    check_layout("pool[0]", works, anything)
    assert (works.ranks, works.ranks_per_node) == (ranks, per_node)


@pytest.mark.parametrize(
    ("refused", "key", "said"),
    [
        (
            layout(tp=8, nodes=2, gpus=3),
            "tensor_parallel",
            "spec: pool[0].tensor_parallel = 8: ranks = tensor_parallel x sequence_parallel x pipeline_parallel = 8, "
            "but nodes x gpus_per_node = 6; nearest: tensor_parallel = 6, or gpus_per_node = 4",
        ),
        (layout(gpus=4), "tensor_parallel", "nearest: tensor_parallel = 4, or pipeline_parallel = 4"),
        (layout(gpus=2), "tensor_parallel", "gpus_per_node = 1"),  # a GPU of it would idle
        (layout(tp=16, nodes=3, gpus=8), "tensor_parallel", "nearest: tensor_parallel = 24, or nodes = 2"),
        (layout(tp=5, pp=4, nodes=3, gpus=7), "tensor_parallel", "tensor_parallel = 7 with pipeline_parallel = 3"),
        (layout(tp=3, nodes=2, cpus=8), "nodes", "so many nodes cannot share ranks = "),
        (layout(tp=3, nodes=2, cpus=8), "nodes", "tensor_parallel = 4, or nodes = 3, or pipeline_parallel = 2"),
        (layout(tp=4, cpus=2), "cpus_per_task", "for each of the 4 ranks of a node; nearest: tensor_parallel = 2, or "),
        (layout(tp=2), "cpus_per_task", "tensor_parallel = 1, or cpus_per_task = 2, or nodes = 2"),
        (layout(sp=3, nodes=2, cpus=8), "nodes", "sequence_parallel = 4, or "),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_with_the_nearest_that_works(refused, key, said):
    with pytest.raises(SpecError) as caught:
        check_layout("pool[0]", refused, anything)
    assert caught.value.key == f"pool[0].{key}"
    assert caught.value.value == getattr(refused, key)
    assert said in str(caught.value)


counts = st.integers(1, 24)


@given(counts, counts, counts, st.integers(0, 8), counts, counts)
def test_every_layout_works_or_is_refused_with_some_that_work(tp, pp, nodes, gpus, cpus, sp):
    given = layout(tp, pp, nodes, gpus, cpus, sp)
    try:
        check_layout("pool[0]", given, anything)
    except SpecError as error:
        _, _, nearest = error.expected.partition("nearest: ")
        for suggestion in nearest.split(", or "):
            changes: dict[str, Any] = {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", suggestion)}
            assert changes
            check_layout("pool[0]", replace(given, **changes), anything)
    else:
        assert given.ranks == nodes * given.ranks_per_node
        assert given.ranks_per_node == gpus if gpus else given.ranks_per_node <= cpus


def test_the_rule_of_an_engine_counts_for_the_suggestions_too():
    def even(layout: Layout) -> Fault | None:
        return ("tensor_parallel", "expected an even one") if layout.tensor_parallel % 2 else None

    with pytest.raises(SpecError, match=r"expected an even one; nearest: tensor_parallel = 4$"):
        check_layout("pool[0]", layout(tp=3, cpus=8), even)


def test_enormous_values_are_refused_at_once():
    with pytest.raises(SpecError, match="nearest"):
        check_layout("pool[0]", layout(tp=10**12, pp=10**12, nodes=10**9, gpus=10**9), anything)
