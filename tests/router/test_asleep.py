"""A pool that was scaled to zero: its model is listed, and a request waits until a worker has been started for it."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest

from slurminfer.core.records import DecisionRecord, FleetRecord, PoolRecord, ScaleRecord
from slurminfer.core.spec.pool import PoolSpec


def say(deployment, **pool):
    """What the controller writes."""
    decisions = (DecisionRecord(at=1.0, text="stubs: 0 workers wanted, no request for 300 s"),)
    record = FleetRecord(written_at=time.time(), pools={"workers": PoolRecord(**pool)}, decisions=decisions)
    deployment.run.write_fleet(record)


@pytest.fixture
def asleep(empty):
    """A router of a deployment whose only pool sleeps."""
    empty.run.write_spec(msgspec.structs.replace(empty.run.read_spec(), pool=(PoolSpec(min_workers=0),)))
    say(empty, wanted=0, may_come=True)
    empty.start_router()
    return empty


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_request_is_answered_and_the_client_sees_only_waiting(asleep, eventually, stream):
    listed = asleep.http.get("/v1/models").json()["data"]
    assert [(model["id"], model["state"]) for model in listed] == [("stub-model", "asleep")]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asleep.chat, stream=stream)
        eventually(lambda: asleep.http.get("/load").json()["pools"]["workers"]["waiting"] == 1)
        assert not asked.done()
        asleep.add("workers-0")
        answer = asked.result(30)
    assert answer.status_code == 200 and "Hello" in answer.text
    eventually(lambda: asleep.http.get("/load").json()["pools"]["workers"]["waiting"] == 0)


def test_the_status_says_what_is_wanted_and_why(asleep):
    status = asleep.http.get("/status.json").json()
    assert status["pools"] == [
        {
            "name": "workers", "model": "stub-model", "wanted": 0, "ready": 0, "present": 0, "is_asleep": True,
            "gave_up": False, "reason": "there was no request for it; the next one starts one",
        }
    ]  # fmt: skip
    assert status["controller"] == {
        "is_silent": False, "trouble": "",
        "decisions": [{"at": 1.0, "text": "stubs: 0 workers wanted, no request for 300 s"}],
    }  # fmt: skip


def test_a_deployment_that_sleeps_is_healthy_as_it_answers_requests(asleep, eventually):
    nothing = {"ready": 0, "unreachable": 0, "starting": 0, "draining": 0, "gone": 0}
    health = asleep.http.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "asleep", "workers": nothing})
    assert httpx.get(f"{asleep.url}/health").json() == {"status": "asleep"}
    asleep.add("workers-0")
    eventually(lambda: asleep.http.get("/health").json()["status"] == "ok")


def idle(deployment):
    return deployment.http.get("/load").json()["pools"]["workers"]["idle_s"]


def test_what_a_worker_refuses_does_not_keep_its_pool_awake(one, eventually):
    """Relays report once a second, what they have counted together with the load."""
    idle_s = eventually(lambda: (found := idle(one)) > 2.0 and found)
    one.stubs[0].status = 400
    assert one.chat().status_code == 400
    eventually(lambda: 'status="400"' in one.http.get("/metrics").text)
    assert idle(one) > idle_s
    one.stubs[0].status = 200
    assert one.chat().status_code == 200
    eventually(lambda: idle(one) < idle_s)


def test_after_scale_a_request_is_held_before_the_controller_knows_of_it(asleep, eventually):
    say(asleep, wanted=0, asked_at=1.0)
    asleep.run.write_scale(ScaleRecord(pinned={"workers": 0}, asked_at={"workers": 1.0}))
    eventually(lambda: httpx.get(f"{asleep.url}/health").status_code == 503)
    assert asleep.chat().status_code == 503
    asleep.run.write_scale(ScaleRecord(asked_at={"workers": 2.0}))
    eventually(lambda: httpx.get(f"{asleep.url}/health").status_code == 200)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asleep.chat)
        eventually(lambda: asleep.http.get("/load").json()["pools"]["workers"]["waiting"] == 1)
        asleep.add("workers-0")
        assert asked.result(30).status_code == 200
