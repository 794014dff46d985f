"""Files of the run directory that are damaged, of a later version, or gone, and what routers answer."""

import json

import pytest

from slurminfer.core.errors import SlurmError, SlurminferError, SpecError
from slurminfer.core.records import ScaleRecord
from slurminfer.core.spec.files import parse_spec

NAN = '{"version": 2, "written_at": NaN, "pinned": {}, "asked_at": {"cpu": NaN}}'
DAMAGES = ["", "{}", NAN, "[" * 100_000, json.dumps({"version": 99, "written_at": 0.0}), "x" * 20_000_000]


@pytest.fixture(params=DAMAGES, ids=["empty", "no record", "NaN", "deep", "later", "huge"])
def damage(request):
    return request.param


def restart(cluster):
    cluster.controller.close()
    cluster.controller = cluster.new_controller()


def test_without_what_was_remembered_measuring_begins_anew(cluster, damage):
    cluster.tick()
    cluster.run.fleet_path.write_text(damage)
    restart(cluster)
    cluster.end("cpu-0", state="CANCELLED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-1", "cpu-2"] and cluster.run.read_fleet() is not None


def test_an_order_that_is_damaged_is_lost_alone(cluster, damage):
    cluster.tick()
    (cluster.run.orders_path / "cpu-0.json").write_text(damage)
    restart(cluster)
    cluster.end("cpu-1", state="CANCELLED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-2"]


def test_a_routers_record_that_is_damaged_stops_nothing(cluster, damage):
    cluster.tick()
    cluster.run.router_path.write_text(damage)
    cluster.end("cpu-1", state="CANCELLED")
    for _ in range(30):
        cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-2"] and cluster.job("router") == "1"


def test_numbers_stay_as_they_were_asked_for_last(cluster, damage):
    cluster.run.write_scale(ScaleRecord(pinned={"cpu": 3}, asked_at={"cpu": cluster.now}))
    cluster.tick()
    cluster.run.scale_path.write_text(damage.replace("{}", '{"pinned": {"cpu": 1000000000}}'))
    cluster.end("cpu-1", state="CANCELLED")
    cluster.tick(10)
    assert cluster.workers() == ["cpu-0", "cpu-2", "cpu-3"]


@pytest.mark.parametrize("name", ["serials.json", "deployment.json", "spec.toml"])
def test_what_prevents_every_action_is_told(cluster, name):
    cluster.tick()
    cluster.end("cpu-1", state="CANCELLED")
    (cluster.run.path / name).write_text("[]")
    with pytest.raises(SlurminferError, match=name.partition(".")[0]):
        cluster.tick(10)
    fleet = cluster.run.read_fleet()
    assert fleet is not None and name.partition(".")[0] in fleet.trouble


def test_a_long_reason_does_not_make_the_record_unreadable(cluster):
    cluster.tick()
    cluster.table.refusal = SlurmError("x" * 20_000_000)
    cluster.end("cpu-1", state="CANCELLED")
    cluster.tick(10)
    assert cluster.run.fleet_path.stat().st_size < 100_000


@pytest.mark.parametrize("url", ["https://[", "https://127.0.0.1:99999999", "https://a b"])
def test_a_router_at_no_address_tells_nothing(cluster, url, monkeypatch):
    monkeypatch.setattr("slurminfer.jobs.serve.router_link.router_link", lambda *_: _Link(url))
    assert cluster.tick() and cluster.workers() == ["cpu-0", "cpu-1"]


class _Link:
    tls = False

    def __init__(self, url):
        self.url = url


def test_a_pool_cannot_have_the_name_of_the_routers_job():
    with pytest.raises(SpecError, match="router's own job"):
        parse_spec("name = 'd'\n[model]\npath = '/m'\n[[pool]]\nname = 'router'\n")
