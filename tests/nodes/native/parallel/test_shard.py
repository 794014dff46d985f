"""Who computes what: every head, neuron, token and layer one rank of a stage, key-value heads those that need them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.model.parallel.shard import make_shard
from slurminfer.quant.checkpoint.config import ModelConfig, read_config
from slurminfer.quant.models import resolve

from ..model.conftest import make_model


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ModelConfig:
    path = tmp_path_factory.mktemp("model")
    make_model(path, "llama")
    return read_config(path)


def shards(config, tensor_parallel, pipeline_parallel=1):
    count = tensor_parallel * pipeline_parallel
    return [make_shard(config, tensor_parallel, pipeline_parallel, rank) for rank in range(count)]


def joined(ranges) -> list[int]:
    return [i for part in ranges for i in part]


@given(data=st.data())
def test_nothing_is_left_out_and_nothing_is_computed_twice(config, data):
    kv_heads, group = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    shape = replace(
        config,
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        intermediate_size=32 * data.draw(st.integers(45, 80)),
        num_layers=data.draw(st.integers(1, 40)),
        windows=(None,) * 40,
    )
    tensor = data.draw(st.integers(1, shape.num_heads))
    pipeline = data.draw(st.integers(1, shape.num_layers))
    found = shards(shape, tensor, pipeline)
    for stage in range(pipeline):
        ranks = found[stage * tensor : (stage + 1) * tensor]
        assert joined(rank.heads for rank in ranks) == list(range(shape.num_heads))
        assert joined(rank.inner for rank in ranks) == list(range(shape.intermediate_size))
        assert joined(rank.vocab for rank in ranks) == list(range(shape.vocab_size))
        for rank in ranks:
            assert {head // group for head in rank.heads} == set(rank.kv_heads)
            assert len(rank.heads) % len(rank.kv_heads) == 0 and rank.heads and rank.inner
            assert rank.inner.start % 32 == 0
            assert rank.layers == ranks[0].layers and rank.layers
    assert joined(rank.layers for rank in found[::tensor]) == list(range(shape.num_layers))
    assert [rank.is_first for rank in found] == [True] * tensor + [False] * tensor * (pipeline - 1)
    assert [rank.is_last for rank in found] == [False] * tensor * (pipeline - 1) + [True] * tensor


def test_shares_are_as_equal_as_heads_allow():
    demo = read_config(resolve("demo"))  # 9 heads over 3 key-value heads
    assert [(len(s.heads), len(s.kv_heads), len(s.inner)) for s in shards(demo, 2)] == [(6, 2, 768), (3, 1, 768)]
    assert [(len(s.heads), len(s.kv_heads)) for s in shards(demo, 3)] == [(3, 1)] * 3
    assert [(list(s.heads), list(s.kv_heads)) for s in shards(demo, 4)] == [
        ([0, 1], [0]), ([2], [0]), ([3, 4, 5], [1]), ([6, 7, 8], [2]),
    ]  # fmt: skip


def test_the_last_stage_has_fewer_layers_for_its_head():
    demo = read_config(resolve("demo"))  # its head weighs as much as 8 layers
    assert [len(shard.layers) for shard in shards(demo, 1, 2)] == [19, 11]
    assert [len(shard.layers) for shard in shards(demo, 1, 3)] == [13, 12, 5]


@pytest.mark.parametrize(
    ("tensor", "pipeline", "message"),
    [
        (5, 1, "tensor_parallel = 5: the model has 3 times 32 neurons; expected at most 3"),
        (1, 4, "pipeline_parallel = 4: the model has 3 layers; expected at most 3"),
    ],
)
def test_what_cannot_be_cut_is_refused(config, tensor, pipeline, message):
    with pytest.raises(EngineError, match=message):
        shards(replace(config, num_heads=8), tensor, pipeline)


def test_more_ranks_than_heads_are_refused(config):
    with pytest.raises(EngineError, match="tensor_parallel = 5: the model has 4 attention heads; expected at most 4"):
        shards(config, 5)
