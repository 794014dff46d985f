"""Tasks go on after a round that fails: the error is logged once of each kind, and counted."""

import asyncio
import logging

import pytest

from slurminfer.core.background.rounds import Rounds


def fail(error: BaseException) -> None:
    raise error


def fail_elsewhere() -> None:
    raise KeyError("a")


def test_a_round_that_fails_is_counted_and_logged_once_of_each_kind(caplog):
    rounds = Rounds()
    for _ in range(3):
        with rounds.guarded("clock"):
            fail(KeyError("a"))
        with rounds.guarded("clock"):
            fail(ValueError("b"))
        with rounds.guarded("clock"):
            fail_elsewhere()
        with rounds.guarded("news"):
            fail(KeyError("a"))
    assert rounds.failed == {"clock": 9, "news": 3}
    assert len(caplog.records) == 4
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)


def test_failures_are_counted_where_the_caller_wants_them():
    table: dict[str, int] = {}
    with Rounds(table).guarded("clock"):
        fail(KeyError("a"))
    assert table == {"clock": 1}


def test_a_cancellation_and_the_end_of_the_process_are_no_failures():
    rounds = Rounds()
    for error in (asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt()):
        with pytest.raises(type(error)), rounds.guarded("clock"):
            fail(error)
    assert rounds.failed == {"clock": 0}, "it is seen to run"


def test_a_task_that_fails_begins_again_until_it_returns(monkeypatch):
    monkeypatch.setattr("slurminfer.core.background.rounds.PAUSE_S", 0)
    rounds, begun = Rounds(), []

    async def run():
        begun.append(1)
        if len(begun) < 4:
            raise ZeroDivisionError

    asyncio.run(rounds.repeat("keys", run))
    assert (len(begun), rounds.failed) == (4, {"keys": 3})


def test_a_task_that_is_repeated_can_be_cancelled():
    async def cancelled():
        task = asyncio.create_task(Rounds().repeat("keys", lambda: asyncio.sleep(3600)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
