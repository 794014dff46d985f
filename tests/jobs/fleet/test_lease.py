"""Who is in charge: one controller, another one when it has died, and none twice."""

import msgspec
import pytest

from slurminfer.core import files
from slurminfer.core.records import CONTROLLER_SILENCE_S
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.fleet.lease import Lease, LeaseRecord


class Clock:
    """Seconds that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    return run


def elsewhere(run, **changes):
    """Leave the lease of a controller on another machine."""
    record = LeaseRecord(holder="other", host="elsewhere", process="1@1-00000000", namespace=1)
    files.write_atomic(run.lease_path, files.encode_json(msgspec.structs.replace(record, **changes)))


def test_the_first_one_has_it_and_keeps_it(run):
    first, second = Lease(run), Lease(run)
    assert first.renew() and not second.renew()
    assert first.renew() and first.is_held() and not second.is_held()


def test_the_next_one_has_it_when_it_was_given_back(run):
    first, second = Lease(run), Lease(run)
    assert first.renew()
    first.release()
    assert second.renew() and not first.renew()


def test_one_that_does_not_renew_it_loses_it(run):
    elsewhere(run)
    clock = Clock()
    lease = Lease(run, clock)
    assert not lease.renew()
    clock.now = CONTROLLER_SILENCE_S / 2
    elsewhere(run, beat=1)
    assert not lease.renew()
    clock.now += CONTROLLER_SILENCE_S - 1
    assert not lease.renew()
    clock.now += 2
    assert lease.renew() and lease.is_held()


def test_of_two_that_take_over_one_gets_it(run):
    elsewhere(run)
    clock = Clock()
    leases = [Lease(run, clock) for _ in range(2)]
    assert [lease.renew() for lease in leases] == [False, False]
    clock.now = CONTROLLER_SILENCE_S + 1
    assert sorted(lease.renew() for lease in leases) == [False, True]


def test_a_permit_to_take_over_that_was_left_behind_is_removed_later(run):
    elsewhere(run)
    clock = Clock()
    lease = Lease(run, clock)
    lease.renew()
    found = msgspec.convert(files.read_json(run.lease_path), LeaseRecord)
    files.claim(lease._permit_for(found), "")
    clock.now = CONTROLLER_SILENCE_S + 1
    assert not lease.renew()
    clock.now = 3 * CONTROLLER_SILENCE_S
    assert not lease.renew() and lease.renew()


def test_a_holder_whose_process_has_ended_here_is_replaced_at_once(run):
    lease = Lease(run)
    own = lease._own
    dead = own.process.replace(own.process.partition("@")[0], "4194304", 1)
    elsewhere(run, host=own.host, namespace=own.namespace, process=dead)
    assert lease.renew()


@pytest.mark.parametrize("damage", ["", "{}", "[" * 100_000])
def test_a_damaged_lease_is_nobodys_and_is_taken_over_in_time(run, damage):
    files.write_atomic(run.lease_path, damage)
    clock = Clock()
    lease = Lease(run, clock)
    assert not lease.renew() and not lease.keep()
    clock.now = CONTROLLER_SILENCE_S + 1
    assert lease.renew() and lease.keep()


def test_an_action_renews_the_lease_and_one_that_is_lost_is_not_taken_back(run):
    first, clock = Lease(run), Clock()
    other = Lease(run, clock)
    assert first.renew() and not other.renew()
    for _ in range(3):
        clock.now += CONTROLLER_SILENCE_S - 1
        assert first.keep() and not other.renew()
    clock.now += CONTROLLER_SILENCE_S + 1
    assert other.renew() and not first.keep() and other.keep()
