"""Which rows are sent, and in which order."""

from pathlib import Path

import pytest

from slurminfer.jobs.batch.driver.selection import Selection
from slurminfer.jobs.batch.driver.work import Work, arrange, cost_of, prompt_of
from slurminfer.jobs.batch.inputs.plan import InputFile, Plan, Shard
from slurminfer.jobs.batch.inputs.request import BatchRequest


def plan_of(*rows: int) -> Plan:
    file = InputFile(path=Path("/in"), format="jsonl", size=1, changed_ns=1, rows=sum(rows))
    shards = (Shard(number=number, file=0, first=sum(rows[:number]), rows=count) for number, count in enumerate(rows))
    return Plan(files=(file,), shards=tuple(shards))


def chosen(plan: Plan, **which: int) -> list[int]:
    """Places in the whole input."""
    selection = Selection(plan, **which)
    found = []
    for shard in plan.shards:
        rows = [index for index in range(shard.rows) if index in selection.of(shard)]
        assert len(rows) == selection.count(shard)
        found += [shard.first + index for index in rows]
    assert len(found) == selection.rows
    return found


def test_all_rows():
    assert Selection(plan_of(3, 4)).is_all
    assert chosen(plan_of(3, 0, 4)) == list(range(7))


@pytest.mark.parametrize("limit", [1, 3, 4, 9, 10, 50])
def test_the_first_rows(limit):
    plan = plan_of(3, 1, 6)
    assert not Selection(plan, limit=limit).is_all
    assert chosen(plan, limit=limit) == list(range(min(limit, 10)))


def test_a_sample_is_spread_over_all_and_always_the_same():
    plan = plan_of(1000, 1000, 1000)
    rows = chosen(plan, sample=60)
    assert len(set(rows)) == 60 and rows == chosen(plan, sample=60)
    assert all(any(1000 * shard <= row < 1000 * shard + 1000 for row in rows) for shard in range(3))
    assert chosen(plan, sample=5000) == list(range(3000))


def work(prompt: str, most_tokens: int = 100) -> Work:
    request = BatchRequest(0, 0, 1, "", "/v1/completions", {"prompt": prompt})
    cost = cost_of(len(prompt), most_tokens)
    return Work(request=request, shard=plan_of(1).shards[0], body=b"", has_model=True, prompt=prompt, cost=cost)


def test_rows_whose_prompts_begin_alike_are_neighbours():
    prompts = ["long beginning A: 3", "other", "long beginning B: 1", "long beginning A: 1", "long beginning B: 2"]
    arranged = [row.prompt for row in arrange(map(work, prompts), last=False)]
    assert [prompt[15] for prompt in arranged if prompt != "other"] == ["A", "A", "B", "B"]


def test_equal_rows_keep_their_order():
    rows = [work("same") for _ in range(5)]
    assert [id(row) for row in arrange(rows, last=False)] == [id(row) for row in rows]
    assert [id(row) for row in arrange(rows, last=True)] == [id(row) for row in rows]


def test_at_the_end_the_longest_go_first_and_alike_ones_stay_neighbours():
    rows = [work("b 1", 64), work("a 1", 2000), work("b 2", 2000), work("a 2", 64), work("x" * 1_000_000, 64)]
    arranged = [row.prompt[:3] for row in arrange(rows, last=True)]
    assert arranged == ["xxx", "a 1", "b 2", "a 2", "b 1"]


def test_the_cost_of_a_row():
    assert cost_of(4000, 10) < cost_of(4000, 100) < cost_of(4000, None) < cost_of(4000, None, ("go on",))
    assert cost_of(4000, 10) < cost_of(400_000, 10)
    assert cost_of(0, "many") == cost_of(0, None) == cost_of(0, -1)


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "a"}, "a"),
        ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}, "s\nu"),
        ({"messages": [{"content": [{"type": "text", "text": "t"}, {"type": "image_url"}, "odd"]}]}, "t"),
        ({"messages": [None, {"content": None}]}, "\n"),
        ({"messages": "odd"}, ""),
        ({"prompt": [1, 2]}, ""),
        ({"input": "a"}, ""),
    ],
)
def test_the_text_of_a_request(body, prompt):
    assert prompt_of(body) == prompt
