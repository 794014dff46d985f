"""Workers that refuse what others answer, and clients whose requests are wrong."""

import pytest

from ..relayed import TEXT, answer, text_of


async def refuse(asked):
    await asked.whole({"error": {"message": "no"}}, status=400)


async def judge(asked):
    """As an engine does that knows a bad request."""
    await (refuse(asked) if asked.body.get("bad") else answer(asked))


@pytest.fixture
def three(relayed):
    relay = relayed(policy="round_robin")
    for number in range(3):
        relay.add(f"w-{number}", judge)
    return relay


def test_a_new_worker_that_refuses_everything_costs_no_request(three):
    three.stubs[0].behaviour = refuse
    answers = [three.chat() for _ in range(12)]
    assert {one.status_code for one in answers} == {200}
    assert {(suspect.slot, suspect.kind) for suspect in three.suspects} == {(0, "refusing")}


def test_a_worker_that_begins_to_refuse_everything_is_noticed_after_three(three):
    for _ in range(6):
        assert text_of(three.chat()) == TEXT
    three.stubs[1].behaviour = refuse
    answers = [three.chat() for _ in range(30)]
    assert sum(one.status_code == 400 for one in answers) == 2
    assert three.suspects[0].slot == 1


@pytest.mark.parametrize("status", [401, 413, 429])
def test_what_says_nothing_of_the_request_is_no_refusal(three, status):
    async def refuse(asked):
        await asked.whole({"error": {"message": "no"}}, status=status)

    three.stubs[0].behaviour = refuse
    for _ in range(30):
        three.chat()
    assert not three.suspects


def test_a_thousand_bad_requests_change_nothing(three):
    for _ in range(3):
        assert text_of(three.chat()) == TEXT
    before = sum(len(stub.asked) for stub in three.stubs)
    for number in range(1000):
        assert three.chat(bad=True).status_code == 400
        if number % 10 == 0:
            assert text_of(three.chat()) == TEXT
    asked = sum(len(stub.asked) for stub in three.stubs) - before
    assert asked - 1100 <= 30, "a few were tried twice"
    assert len(three.suspects) <= 30
    assert all(upstream.choosable for upstream in three.server._workers.all())


def test_bad_requests_alone_are_no_reason_for_doubt(three):
    for _ in range(100):
        assert three.chat(bad=True).status_code == 400
    assert sum(len(stub.asked) for stub in three.stubs) <= 103, "each worker's first one is tried at another"
    assert not three.suspects
