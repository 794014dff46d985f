"""Usage: merged from what relays report, kept over restarts, bounded."""

import asyncio
import os
import stat

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.router.tenants import usage as module
from slurminfer.router.tenants.tenant import Usage
from slurminfer.router.tenants.usage import TokensToday, UsageLedger, read_usage

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
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = UsageLedger(path, clock)
    again.merge(0, {"alice": used(2, 1)})
    again.write()
    assert read_usage(path)["alice"].total == used(3, 11, 5, 2)


def test_nothing_is_written_where_nothing_has_changed(path, clock):
    ledger = UsageLedger(path, clock)
    ledger.write()
    assert not path.exists()
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    inode = path.stat().st_ino
    ledger.merge(0, {"alice": used(1)})
    ledger.write()
    assert path.stat().st_ino == inode


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
        while not os.path.exists(path):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(kept())
    assert read_usage(path)["alice"].total.requests == 1


def test_what_relays_add_to_the_board_for_today(clock):
    board = {0: 0, 1: 0}
    today = TokensToday({"alice": 100}, board.__getitem__, clock)
    slots = {"alice": 0, "bob": 1}
    assert today.table(slots) == {"alice": 100}
    board.update({0: 30, 1: 5})
    assert today.table(slots) == {"alice": 100}
    clock.now += 86_400
    assert today.table(slots) == {"alice": -30, "bob": -5}
    board.update({0: 31})
    assert today.table(slots) == {"alice": -30, "bob": -5}
