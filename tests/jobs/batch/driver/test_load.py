"""What endpoints say of their load."""

import json

import pytest

from slurminfer.jobs.batch.driver.http.reply import Reply
from slurminfer.jobs.batch.driver.load import Load, parse_metrics, parse_workers
from slurminfer.router.fleet.worker import ASSUMED_CAPACITY


def reply(body: object, status: int = 200) -> Reply:
    return Reply(status, [], body if isinstance(body, bytes) else json.dumps(body).encode())


def test_slurminfers_router_tells_its_workers():
    ready = {"state": "ready", "healthy": True, "capacity": 8, "running": 5, "waiting": 2}
    silent = {"state": "ready", "healthy": True, "capacity": None, "running": None, "waiting": None}
    sick, gone = ready | {"healthy": False}, ready | {"state": "gone"}
    told = {"workers": [ready, silent, sick, gone], "may_be_added": 3}
    expected = Load(capacity=8 + ASSUMED_CAPACITY, may_be_added=3, workers=2, running=5, waiting=2)
    assert parse_workers(reply(told)) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", {}, [], {"workers": [{}]}, {"error": {"message": "not found"}}])
def test_what_is_no_list_of_workers(body):
    assert parse_workers(reply(body)) is None


VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 12.0
vllm:num_requests_running{engine="1",model_name="m"} 10.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
"""
SGLANG = b"""# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 7.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 1.0
"""


@pytest.mark.parametrize(("text", "load"), [(VLLM, Load(running=22, waiting=3)), (SGLANG, Load(running=7, waiting=1))])
def test_engines_tell_their_queue(text, load):
    assert parse_metrics(reply(text)) == load


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"process_cpu_seconds_total 1\n", b"vllm:num_requests_running x\n"])
def test_what_is_no_engines_metrics(text):
    assert parse_metrics(reply(text)) is None
    assert parse_metrics(reply(VLLM, status=403)) is None
