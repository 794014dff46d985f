"""Usage: merged from what relays report, kept over restarts, bounded."""

import asyncio
import os
import stat

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.locks import try_lock
from slurminfer.router.tenants import usage_files as module
from slurminfer.router.tenants.tenant import Usage
from slurminfer.router.tenants.usage import TokensToday, UsageLedger
from slurminfer.router.tenants.usage_files import read_usage

MIDNIGHT = 20_000 * 86_400  # of 2024-10-04


class Clock:
    def __init__(self):
        self.now = float(MIDNIGHT)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "usage.json"


def used(requests, prompt=0, cached=0, generated=0):
    return Usage(requests=requests, prompt_tokens=prompt, cached_tokens=cached, generated_tokens=generated)


def test_reports_are_cumulative_and_added_up_over_relays(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge(("relay", 0), {"alice": used(1, 10, 5, 2)})
    ledger.merge(("relay", 1), {"alice": used(2, 20, 0, 4), "bob": used(1)})
    ledger.merge(("relay", 0), {"alice": used(4, 40, 20, 8)})
    assert ledger.tenants["alice"].total == used(6, 60, 20, 12)
    assert ledger.tenants["alice"].days == {"2024-10-04": used(6, 60, 20, 12)}
    assert ledger.tokens_today() == {"alice": 72, "bob": 0}


def test_a_report_that_is_changed_by_its_sender_afterwards_does_not_matter(path, clock):
    ledger, told = UsageLedger(path, clock), used(1)
    ledger.merge(0, {"alice": told})
    told.requests = 5
    ledger.merge(0, {"alice": told})
    assert ledger.tenants["alice"].total.requests == 5


def test_a_relay_that_is_started_anew_begins_at_zero(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge("first life", {"alice": used(5)})
    ledger.forget("first life")
    ledger.merge("second life", {"alice": used(7)})
    assert ledger.tenants["alice"].total.requests == 12


def test_a_day_ends_at_midnight_utc(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge(0, {"alice": used(1, 10)})
    clock.now += 86_399
    ledger.merge(0, {"alice": used(2, 20)})
    clock.now += 1
    assert ledger.tokens_today() == {}
    ledger.merge(0, {"alice": used(5, 50)})
    days = ledger.tenants["alice"].days
    assert [(day, one.requests) for day, one in days.items()] == [("2024-10-04", 2), ("2024-10-05", 3)]
    assert ledger.tenants["alice"].total.requests == 5


def test_totals_go_on_from_the_file(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge(0, {"alice": used(1, 10, 5, 2)})
    ledger.write()
    assert stat.S_IMODE(ledger.file.stat().st_mode) == 0o600
    again = UsageLedger(path, clock)
    again.merge(0, {"alice": used(2, 1)})
    again.write()
    assert read_usage(path)["alice"].total == used(3, 11, 5, 2)


def test_nothing_is_written_where_nothing_has_changed(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.write()
    assert not ledger.file.exists()
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    inode = ledger.file.stat().st_ino
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    assert ledger.file.stat().st_ino == inode


def test_days_are_bounded_and_totals_are_not(path, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_DAYS", 3)
    ledger = UsageLedger(path, clock)
    for day in range(5):
        ledger.merge(0, {"alice": used(day + 1)})
        clock.now += 86_400
    assert list(ledger.tenants["alice"].days) == ["2024-10-06", "2024-10-07", "2024-10-08"]
    assert ledger.tenants["alice"].total.requests == 5


def test_a_full_disk_loses_nothing_and_is_told_once(path, clock, caplog):
    ledger = UsageLedger(path, clock)
    folder = path.parent
    ledger.merge(0, {"alice": used(1)})
    full = folder.rename(folder.with_name("gone"))  # so that writing fails, for root too
    ledger.write()
    ledger.merge(0, {"alice": used(2)})
    ledger.write()
    assert caplog.text.count("cannot be saved") == 1
    full.rename(folder)
    ledger.write()
    assert read_usage(path)["alice"].total.requests == 2


@pytest.mark.parametrize("content", ["{", '{"version": 9}', '{"tenants": {"a": {"total": {"requests": "x"}}}}'])
def test_a_damaged_file_is_put_aside(path, clock, caplog, content):
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(RunDirectoryError, match=r"usage\.json"):
        read_usage(path)
    ledger = UsageLedger(path, clock)
    assert "counted anew" in caplog.text
    assert path.with_name("usage.json.damaged").read_text(encoding="utf-8") == content
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    assert read_usage(path)["alice"].total.requests == 1


def test_keeping_writes_what_has_changed(path, clock):
    async def kept():
        ledger = UsageLedger(path, clock)
        ledger.merge(0, {"alice": used(1)})
        task = asyncio.create_task(ledger.keep(period_s=0))
        while not ledger.file.exists():
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(kept())
    assert read_usage(path)["alice"].total.requests == 1


def test_what_relays_add_to_the_board_for_today(clock):
    board, elsewhere = {0: 0, 1: 0}, {"alice": 100}
    today = TokensToday(lambda: elsewhere, board.__getitem__, clock)
    slots = {"alice": 0, "bob": 1}
    assert today.table(slots) == {"alice": 100}
    board.update({0: 30, 1: 5})
    elsewhere["alice"] = 110  # another router has counted
    assert today.table(slots) == {"alice": 110}
    clock.now += 86_400
    elsewhere = {}
    assert today.table(slots) == {"alice": -30, "bob": -5}
    board.update({0: 31})
    elsewhere = {"bob": 7}
    assert today.table(slots) == {"alice": -30, "bob": 2}


def test_two_routers_at_once_count_together_and_see_each_other(path, clock):
    first, second = UsageLedger(path, clock), UsageLedger(path, clock)
    first.merge(0, {"alice": used(1, 10)})
    first.write()
    second.merge(0, {"alice": used(2, 20), "bob": used(1, 3)})
    second.write()
    assert first.look() and second.look()
    assert not first.look()
    assert (first.tokens_elsewhere(), first.tokens_today()) == ({"alice": 20, "bob": 3}, {"alice": 30, "bob": 3})
    assert second.tokens_elsewhere() == {"alice": 10}
    for ledger in (first, second):
        assert ledger.totals() == {"alice": used(3, 30), "bob": used(1, 3)}
    assert {name: one.total for name, one in read_usage(path).items()} == first.totals()


def test_the_file_of_a_router_that_has_ended_is_added_to_usage_json_once(path, clock):
    first, second = UsageLedger(path, clock), UsageLedger(path, clock)
    first.merge(0, {"alice": used(1, 10)})
    first.end()
    assert not first.file.exists() and second.look()
    second.merge(0, {"alice": used(2, 20)})
    assert second.totals() == {"alice": used(3, 30)}
    second.end()
    assert read_usage(path)["alice"].total == used(3, 30)
    assert [file.name for file in second.file.parent.iterdir()] == [".lock"]


def test_adding_that_is_cut_off_before_the_file_is_removed_counts_once(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge(0, {"alice": used(1, 10)})
    ledger.write()
    text = ledger.file.read_bytes()
    ledger.end()
    ledger.file.write_bytes(text)  # as if the router had been killed
    ledger.file.chmod(0o600)
    assert read_usage(path)["alice"].total == used(1, 10)
    assert UsageLedger(path, clock).totals() == {"alice": used(1, 10)}


def test_a_router_that_was_killed_is_added_after_a_day_and_one_that_was_only_stopped_counts_on(path, clock):
    stopped, other = UsageLedger(path, clock), UsageLedger(path, clock)
    stopped.merge(0, {"alice": used(1, 10)})
    stopped.write()
    os.utime(stopped.file, (clock.now, clock.now))
    before = stopped.file
    other.look()
    assert before.exists()
    clock.now += 86_401
    other.look()
    assert not before.exists() and other.totals() == {"alice": used(1, 10)}
    stopped.look()
    stopped.merge(0, {"alice": used(4, 40)})
    stopped.write()
    assert stopped.file != before
    assert read_usage(path)["alice"].total == used(4, 40)


def test_while_another_router_adds_files_nothing_is_lost(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.merge(0, {"alice": used(1, 10)})
    ledger.write()
    with (ledger.file.parent / ".lock").open("w", encoding="utf-8") as lock:
        try_lock(lock)
        ledger.end()
    assert ledger.file.exists()
    assert read_usage(path)["alice"].total == used(1, 10)
    UsageLedger(path, clock).end()
    assert not ledger.file.exists() and read_usage(path)["alice"].total == used(1, 10)


def test_a_damaged_file_of_another_router_is_told_of_and_left_out(path, clock, caplog):
    ledger = UsageLedger(path, clock)
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    damaged = ledger.file.with_name("7.json")
    damaged.write_text("{")
    damaged.chmod(0o600)
    other = UsageLedger(path, clock)
    other.look()
    assert other.totals() == {"alice": used(1)}
    assert caplog.text.count("7.json") == 1
