"""Whether pools get a worker, from what the controller and the scheduler say."""

import time

import pytest

from slurminfer.core.job import JobPhase
from slurminfer.core.records import CONTROLLER_SILENCE_S, FleetRecord, PoolRecord, QueuedJob, ScaleRecord
from slurminfer.core.spec.files import parse_spec
from slurminfer.router.control.messages import Outlook
from slurminfer.router.fleet.controller import ControllerReport
from slurminfer.router.fleet.models import ASLEEP, OFFLINE, QUEUED, model_states
from slurminfer.router.fleet.outlook import Prospect, outlooks, prospects
from slurminfer.router.fleet.queue import Queue

SPEC = parse_spec("""\
name = "test"
[model]
path = "m"
[[pool]]
name = "gpus"
""")
# Noon of a day, local time.
NOW = time.mktime((2030, 5, 17, 12, 0, 0, 0, 0, -1))


class World:
    """What the two have said, at a time of the test's own."""

    def __init__(self):
        self.now = 0.0
        self.controller = ControllerReport(lambda: self.now)
        self.queue = Queue()

    def say(self, written_at=1.0, **pool):
        self.controller.hear(FleetRecord(written_at=written_at, pools={"gpus": PoolRecord(**pool)}))

    def wait_in_queue(self, **job):
        said = QueuedJob(**{"phase": JobPhase.PENDING, "state": "PENDING", **job})
        self.queue = Queue(frozenset({"gpus-0"}), NOW, {"gpus-0": said})

    def outlook(self):
        return outlooks(SPEC, [], self.queue, self.controller, NOW).get("gpus", Outlook())

    def prospect(self):
        return prospects(SPEC, [], self.queue, self.controller, NOW)["gpus"]

    def model(self, asleep=()):
        outlook = outlooks(SPEC, [], self.queue, self.controller, NOW)
        [found] = model_states(SPEC, [], self.queue, {}, outlook, asleep=asleep, now=NOW, monotonic=0.0)
        return found


@pytest.fixture
def world():
    return World()


def test_nothing_is_known_without_a_controller_and_without_jobs(world):
    assert world.outlook() == Outlook()


def test_a_pool_that_sleeps_wakes_with_the_next_request(world):
    world.say(wanted=0, may_come=True)
    assert world.outlook() == Outlook(may_come=True, reason="there was no request for it; the next one starts one")
    model = world.model(asleep={"gpus"})
    assert (model.state, model.may_come) == (ASLEEP, True)


def test_a_pool_that_a_user_has_scaled_to_nothing_says_so(world):
    world.say(wanted=0)
    assert world.outlook() == Outlook(reason="no workers of it are wanted, as 'slurminfer scale' has said")


def test_a_worker_that_is_to_be_submitted_is_queued(world):
    world.say(wanted=1, may_come=True)
    assert world.outlook() == Outlook(may_come=True, reason="one is to be started")
    assert world.model().state == QUEUED


def test_what_slurm_expects_is_told_with_the_time(world):
    world.say(wanted=1, may_come=True)
    world.wait_in_queue(reason="Priority", starts_at=NOW + 2 * 3600 + 20 * 60)
    expected = "one is waiting in Slurm's queue (Priority), expected to start at 14:20"
    assert world.outlook() == Outlook(may_come=True, reason=expected)
    world.wait_in_queue(starts_at=NOW + 24 * 3600)
    assert world.outlook().reason.endswith("expected to start at 2030-05-18 12:00")
    world.wait_in_queue(starts_at=NOW - 60)
    assert world.outlook().reason == "one is waiting in Slurm's queue"


def test_a_job_that_never_starts_says_so(world):
    world.wait_in_queue(reason="PartitionTimeLimit", obstacle="its walltime is above the partition's")
    assert world.outlook().reason == (
        "one is waiting in Slurm's queue and does not start as it is: its walltime is above the partition's"
    )


def test_a_job_that_runs_is_a_worker_that_starts(world):
    world.wait_in_queue(phase=JobPhase.RUNNING, state="RUNNING")
    assert world.outlook().reason == "one is starting"


def test_why_the_controller_waits_is_told(world):
    world.say(wanted=1, waits="8 of 8 GPU-hours of today are used", waits_until=NOW + 12 * 3600)
    reason = "none is started now: 8 of 8 GPU-hours of today are used, until 2030-05-18 00:00"
    assert world.outlook() == Outlook(may_come=None, reason=reason)
    assert (world.model().state, world.model().reason) == (OFFLINE, reason)


def test_a_pool_that_was_given_up_gets_none(world):
    world.say(wanted=1, gave_up=True, waits="5 workers in a row have ended")
    assert world.outlook() == Outlook(may_come=False, reason="none is started any more: 5 workers in a row have ended")
    assert world.model().may_come is False


def test_a_controller_that_writes_no_more_promises_nothing_by_the_routers_own_clock(world):
    world.say(wanted=0, may_come=True)
    for _ in range(3):  # read again and again, with no change
        world.now += CONTROLLER_SILENCE_S / 3
        world.say(wanted=0, may_come=True)
    assert world.outlook().may_come is True
    world.now += 1
    assert world.outlook() == Outlook() and world.controller.is_silent
    world.say(written_at=2.0, wanted=0, may_come=True)
    assert world.outlook().may_come is True
    world.controller.hear(None)
    assert world.outlook() == Outlook() and not world.controller.is_silent


def test_workers_that_a_user_has_just_asked_for_may_come_before_the_controller_knows_of_it(world):
    world.say(wanted=0)
    world.controller.hear_scale(ScaleRecord(pinned={"gpus": 0}, asked_at={"gpus": 1.0}))
    assert world.outlook().may_come is None
    world.controller.hear_scale(ScaleRecord(asked_at={"gpus": 2.0}))
    assert world.outlook().may_come is True
    world.say(wanted=0, asked_at=2.0)
    assert world.outlook().may_come is None


def test_a_pool_that_was_given_up_may_come_when_another_try_was_asked_for(world):
    world.say(wanted=1, gave_up=True, waits="5 workers in a row have ended", asked_at=1.0)
    world.controller.hear_scale(ScaleRecord(asked_at={"gpus": 2.0}))
    assert world.outlook() == Outlook(may_come=True, reason="one is to be started")


def test_what_a_request_can_hope_for(world):
    assert world.prospect() is Prospect.COMING
    world.say(wanted=0, may_come=True)
    assert world.prospect() is Prospect.ASLEEP
    world.say(wanted=1, may_come=True)
    assert world.prospect() is Prospect.COMING
    world.wait_in_queue(obstacle="its walltime is above the partition's")
    assert world.prospect() is Prospect.NONE
    world.wait_in_queue()
    assert world.prospect() is Prospect.COMING
    world.say(wanted=0)
    assert world.prospect() is Prospect.NONE
    world.say(wanted=1, gave_up=True)
    assert world.prospect() is Prospect.NONE
