"""Which layouts of ranks on nodes are refused, and what is said instead."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import SpecError
from slurminfer.core.layout import Layout, check_layout
from slurminfer.core.spec import parse_spec


def layout(engine="native", tp=1, pp=1, nodes=1, gpus=0, cpus=1, sp=1) -> Layout:
    return Layout(
        engine=engine, tensor_parallel=tp, sequence_parallel=sp, pipeline_parallel=pp, gpus_per_node=gpus,
        cpus_per_task=cpus, nodes=nodes,
    )  # fmt: skip


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
        (layout("sglang", tp=8, pp=2, nodes=2, gpus=8), 16, 8),
        (layout("vllm", tp=16, nodes=2, gpus=8), 16, 8),
        (layout("sglang", tp=16, pp=2, nodes=4, gpus=8), 32, 8),
        (layout("sglang", tp=2, pp=4, nodes=2, gpus=4), 8, 4),
    ],
)
def test_layouts_that_work(works, ranks, per_node):
    check_layout("pool[0]", works)
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
        (layout("sglang", gpus=4), "tensor_parallel", "nearest: tensor_parallel = 4, or pipeline_parallel = 4"),
        (layout(gpus=2), "tensor_parallel", "gpus_per_node = 1"),  # a GPU of it would idle
        (layout("vllm", tp=16, nodes=3, gpus=8), "tensor_parallel", "nearest: tensor_parallel = 24, or nodes = 2"),
        (layout(tp=5, pp=4, nodes=3, gpus=7), "tensor_parallel", "tensor_parallel = 7 with pipeline_parallel = 3"),
        (layout(tp=3, nodes=2, cpus=8), "nodes", "so many nodes cannot share ranks = "),
        (layout(tp=3, nodes=2, cpus=8), "nodes", "tensor_parallel = 4, or nodes = 3, or pipeline_parallel = 2"),
        (layout(tp=4, cpus=2), "cpus_per_task", "for each of the 4 ranks of a node; nearest: tensor_parallel = 2, or "),
        (layout(tp=2), "cpus_per_task", "tensor_parallel = 1, or cpus_per_task = 2, or nodes = 2"),
        (layout(sp=3, nodes=2, cpus=8), "nodes", "sequence_parallel = 4, or "),
        (layout("vllm", sp=2, gpus=2), "sequence_parallel", "only engine native has it; flags of vllm's own go into "),
        (layout("sglang", sp=2), "sequence_parallel", "extra_args; nearest: sequence_parallel = 1"),
        (layout("sglang", tp=3, pp=2, nodes=3, gpus=2), "pipeline_parallel", "SGLang needs whole stages"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_with_the_nearest_that_works(refused, key, said):
    with pytest.raises(SpecError) as caught:
        check_layout("pool[0]", refused)
    assert caught.value.key == f"pool[0].{key}"
    assert caught.value.value == getattr(refused, key)
    assert said in str(caught.value)


counts = st.integers(1, 24)


@given(st.sampled_from(["native", "sglang", "vllm"]), counts, counts, counts, st.integers(0, 8), counts, counts)
def test_every_layout_works_or_is_refused_with_some_that_work(engine, tp, pp, nodes, gpus, cpus, sp):
    given = layout(engine, tp, pp, nodes, gpus, cpus, sp)
    try:
        check_layout("pool[0]", given)
    except SpecError as error:
        _, _, nearest = error.expected.partition("nearest: ")
        for suggestion in nearest.split(", or "):
            changes: dict[str, Any] = {key: int(value) for key, value in re.findall(r"(\w+) = (\d+)", suggestion)}
            assert changes
            check_layout("pool[0]", replace(given, **changes))
    else:
        assert given.ranks == nodes * given.ranks_per_node
        assert given.ranks_per_node == gpus if gpus else given.ranks_per_node <= cpus


def test_enormous_values_are_refused_at_once():
    with pytest.raises(SpecError, match="nearest"):
        check_layout("pool[0]", layout(tp=10**12, pp=10**12, nodes=10**9, gpus=10**9))


@pytest.mark.parametrize("engine", ["native", "sglang", "vllm"])
def test_one_line_of_a_spec_is_enough_for_every_engine(engine):
    line = f"engine = '{engine}'\nnodes = 4\ntensor_parallel = 16\npipeline_parallel = 2\ngpus_per_node = 8"
    spec = parse_spec(f"name = 'x'\n[model]\npath = 'demo'\n[[pool]]\n{line}")
    assert spec.pool[0].layout.ranks_per_node == 8
