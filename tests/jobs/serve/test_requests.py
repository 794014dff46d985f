"""The jobs that a deployment begins with."""

from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.requests import requests

SPEC = """
name = "x"
[model]
path = "m"
[[pool]]
name = "a"
workers = 2
[[pool]]
name = "b"
partition = "long"
mem = "4G"
"""


def roles(tmp_path, serials):
    return [request.role for request in requests(parse_spec(SPEC), RunDirectory(tmp_path), serials)]


def test_workers_are_named_by_pool_and_serial(tmp_path):
    assert roles(tmp_path, {}) == ["router", "a-0", "a-1", "b-0"]


def test_serials_go_on_where_they_were(tmp_path):
    assert roles(tmp_path, {"a": 5, "gone": 9}) == ["router", "a-5", "a-6", "b-0"]


def test_each_has_a_slot_and_what_its_pool_asks_for(tmp_path):
    _, *workers = requests(parse_spec(SPEC), RunDirectory(tmp_path), {"a": 5})
    assert [request.entry.argv()[-1] for request in workers] == ["--slot=0", "--slot=1", "--slot=2"]
    assert (workers[2].partition, workers[2].mem) == ("long", "4G")
    assert list(workers[2].entry.argv())[-2:] == ["b-0", "--slot=2"]
