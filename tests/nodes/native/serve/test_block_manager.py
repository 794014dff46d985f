"""Which blocks the prefix cache keeps, and which it gives up first."""

import pytest

from slurminfer.nodes.native.engine.block_manager import BlockManager
from slurminfer.nodes.native.engine.request import Request, SamplingParams

from ....support.fake_model import FakeModel, make_core, make_request, run


def _computed(blocks: BlockManager, prompt: list[int]) -> Request:
    """A request whose prompt has been computed."""
    request = Request("id", prompt, SamplingParams(max_tokens=1))
    assert blocks.allocate(request, spare=0)
    request.computed = len(prompt)
    blocks.commit(request)
    return request


def _hits(blocks: BlockManager, prompt: list[int]) -> int:
    """Blocks of `prompt` that the prefix cache has."""
    request = Request("probe", prompt, SamplingParams(max_tokens=1))
    assert blocks.allocate(request, spare=0)
    hits = request.committed
    blocks.free(request)
    return hits


def test_running_requests_share_the_blocks_of_their_common_prefix():
    blocks = BlockManager(10, 2)
    first = _computed(blocks, [1, 2, 3, 4, 5])
    second = _computed(blocks, [1, 2, 3, 4, 6])
    assert first.blocks[:2] == second.blocks[:2]
    assert first.blocks[2] != second.blocks[2]
    assert blocks.num_used == 4
    blocks.free(first)
    assert blocks.num_used == 3
    blocks.free(second)
    assert blocks.num_used == 0


def test_equal_blocks_after_different_prefixes_are_not_shared():
    blocks = BlockManager(10, 2)
    blocks.free(_computed(blocks, [1, 2, 3, 4, 5]))
    assert _hits(blocks, [9, 9, 3, 4, 5]) == 0


@pytest.mark.parametrize(("prompt", "hits"), [([1, 2, 3], 2), ([4, 5, 6], 3)])
def test_the_least_recently_freed_prefix_is_given_up_first_and_from_its_end(prompt, hits):
    blocks = BlockManager(6, 1)
    blocks.free(_computed(blocks, [1, 2, 3]))
    blocks.free(_computed(blocks, [4, 5, 6]))
    blocks.free(_computed(blocks, [7]))  # takes one block
    assert _hits(blocks, [*prompt, 0]) == hits


def test_nothing_changes_when_blocks_do_not_suffice():
    blocks = BlockManager(4, 1)
    blocks.free(_computed(blocks, [1, 2]))
    request = Request("big", [1, 2, 3, 4], SamplingParams(max_tokens=1))
    assert not blocks.allocate(request, spare=1)
    assert request.blocks == []
    assert blocks.num_free == 4
    assert blocks.allocate(request, spare=0)
    assert request.computed == 2


def test_blocks_computed_twice_at_the_same_time_are_both_given_back():
    blocks = BlockManager(4, 1)
    twins = [Request(str(index), [1, 2], SamplingParams(max_tokens=1)) for index in range(2)]
    for twin in twins:
        assert blocks.allocate(twin, spare=0)
    for twin in twins:
        twin.computed = 2
        blocks.commit(twin)
        blocks.free(twin)
    assert blocks.num_free == 4
    assert _hits(blocks, [1, 2, 3]) == 2


def test_what_is_forgotten_is_shared_by_nobody_and_what_is_computed_after_it_is():
    blocks = BlockManager(20, 1)
    blocks.free(_computed(blocks, [1, 2, 3]))
    running = _computed(blocks, [4, 5])
    blocks.forget()
    assert _hits(blocks, [1, 2, 3, 0]) == 0
    running.tokens.append(6)
    assert blocks.grow(running)
    running.computed = 3
    blocks.commit(running)  # computed over the keys and values of before
    _computed(blocks, [4, 5])
    assert _hits(blocks, [4, 5, 6, 0]) == 2
    blocks.free(_computed(blocks, [1, 2, 3]))
    assert _hits(blocks, [1, 2, 3, 0]) == 3


def test_a_model_that_computes_in_another_way_from_now_on_begins_with_an_empty_prefix_cache():
    model = FakeModel(40, 2)
    core = make_core(model)
    cached = []
    for index, compiled in enumerate((False, False, True, True)):
        model.compiled = compiled
        request = make_request(str(index), [1, 2, 0, 1, 2], 2)
        core.add(request)
        run(core)
        cached.append(request.cached)
    assert cached == [0, 4, 0, 4]
