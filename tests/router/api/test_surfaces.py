"""What the pages show: models, workers, tenants, status, metrics."""

import time

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from slurminfer.core.job import JobPhase
from slurminfer.core.records import (
    DeploymentRecord,
    FleetRecord,
    JobRecord,
    PoolRecord,
    QueuedJob,
    QueueRecord,
    WorkerState,
)
from slurminfer.router import metrics
from slurminfer.router.control.counters import Counters, Histogram
from slurminfer.router.control.messages import LaneLoad, Report
from slurminfer.router.tenants.tenant import Usage

from ...support.waiting import eventually


def counted():
    counters = Counters(retries=2, prompt_tokens=1000, cached_tokens=600, expected_cached_tokens=640, moved=1)
    counters.count(counters.requests, ("/v1/chat/completions", 200), 7)
    counters.count(counters.failovers, ("succeeded", "stream"), 3)
    counters.count(counters.failovers, ("failed", "stream"))
    counters.count(counters.choices, "cache", 5)
    counters.count(counters.upstream_errors, ("stubs-0", "lost"))
    counters.time(counters.ttft, "/v1/chat/completions", 0.3)
    counters.itl.observe(0.02)
    return counters


def report(**fields):
    base = {"counters": counted(), "usage": {}, "queued": {"batch": 4}, "connections": {"trusted": 9}}
    return Report(**{**base, "rates": {0: (5000.0, 40.0)}, **fields})


def deploy(run, *workers, said=None, written_s_ago=0.0):
    jobs = tuple(JobRecord(id=str(index), role=role) for index, role in enumerate(("router", *workers)))
    run.claims.take(DeploymentRecord(launcher="slurm", claimed_by="1 on n1", claimed_at=0.0, jobs=jobs))
    if said:
        run.write_queue(QueueRecord(written_at=time.time() - written_s_ago, workers=said))


def models(site):
    return {model["name"]: model for model in site.json("/status.json")["models"]}


def test_models_are_the_workers_own_cards_with_their_states(site):
    site.stub.card |= {"max_model_len": 4096, "root": "org/stub"}
    site.start()
    eventually(lambda: site.fleet.worker("stubs-0").card is not None)
    listed = site.json("/v1/models")["data"]
    names = {"aliases": ["claude-*", "small"]}
    assert listed[1] == {**site.stub.card, "state": "live", "created": 1_700_000_000, **names}
    assert (listed[0]["id"], listed[0]["object"], listed[0]["state"]) == ("large-model", "model", "offline")
    assert site.json("/v1/models/stub-model") == listed[1]
    unknown = site.ask("/v1/models/gpt-9")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == (
        "no model 'gpt-9' here; valid models: large-model, stub-model; other names for them: claude-*, small"
    )


def test_a_model_is_found_by_its_other_names(site):
    site.start()
    model = site.json("/v1/models/stub-model")
    for name in ("claude-sonnet-4-5", "small"):
        assert site.json(f"/v1/models/{name}") == {**model, "id": name, "root": "stub-model"}


def test_other_names_are_those_of_the_key_that_asks(site):
    site.start()
    listed = {model["id"]: model.get("aliases") for model in site.json("/v1/models", "course")["data"]}
    assert listed == {"large-model": ["gpt-*"], "stub-model": ["claude-*", "small"]}
    assert site.json("/v1/models/gpt-5", "course")["root"] == "large-model"
    assert site.ask("/v1/models/gpt-5").status_code == 404


def test_a_worker_that_says_nothing_of_its_model_has_a_card_all_the_same(site):
    site.stub.card["id"] = "another"
    site.start()
    card = site.json("/v1/models/stub-model")
    assert (card["id"], card["owned_by"]) == ("stub-model", "slurminfer") and card["created"] > 0


def test_a_model_whose_jobs_wait_is_queued_with_the_schedulers_words(site):
    waiting = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=time.time() + 600)
    deploy(site.run, "stubs-0", "large-0", said={"large-0": waiting})
    site.start()
    model = models(site)["large-model"]
    assert (model["state"], model["reason"]) == ("queued", "Priority")
    assert 500 < model["starts_in_s"] <= 600 and model["workers"]["queued"] == 1


@pytest.mark.parametrize(
    ("said", "age_s"), [(None, 0), ({"large-0": QueuedJob(phase=JobPhase.RUNNING, state="RUNNING")}, 601)]
)
def test_without_a_recent_word_of_the_scheduler_it_is_just_queued(site, said, age_s):
    deploy(site.run, "large-0", said=said, written_s_ago=age_s)
    site.start()
    model = models(site)["large-model"]
    assert (model["state"], model["starts_in_s"]) == ("queued", None)
    assert model["reason"] == "Slurm has not been asked for it in the last 10 minutes"


def test_a_job_that_has_ended_without_a_record_is_offline_however_long_ago_that_was_seen(site):
    cancelled = QueuedJob(phase=JobPhase.FAILED, state="CANCELLED")
    deploy(site.run, "large-0", said={"large-0": cancelled}, written_s_ago=3600)
    site.start()
    model = models(site)["large-model"]
    assert (model["state"], model["reason"]) == ("offline", "its job has ended: CANCELLED")


@pytest.mark.parametrize("is_all", [True, False])
def test_a_model_of_which_no_job_can_start_says_so(site, is_all):
    held = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="JobHeldUser", obstacle="it is held")
    waiting = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Priority")
    deploy(site.run, "large-0", "large-1", said={"large-0": held, "large-1": held if is_all else waiting})
    site.start()
    seen = site.json("/status.json")
    assert [worker["obstacle"] for worker in seen["expected_workers"]] == ["it is held", "it is held" if is_all else ""]
    large = next(model for model in seen["models"] if model["name"] == "large-model")
    wanted = ("JobHeldUser", "it is held") if is_all else ("Priority", "")
    assert (large["state"], large["reason"], large["obstacle"]) == ("queued", *wanted)


def test_a_model_whose_job_runs_without_a_record_is_starting(site):
    deploy(site.run, "large-0", said={"large-0": QueuedJob(phase=JobPhase.RUNNING, state="RUNNING")})
    site.start()
    assert models(site)["large-model"]["state"] == "starting"


def test_the_walltime_limit_that_the_scheduler_says_now_is_shown(site):
    now = time.time()
    site.run.write_worker(msgspec.structs.replace(site.stub.record, ends_at=now + 60))
    site.start()
    site.fleet.registry.set_limits({"stubs-0": now + 6000})
    assert 5000 < site.json("/status.json")["workers"][0]["seconds_left"] <= 6000
    worker = site.json("/workers")["workers"][0]
    assert worker["seconds_left"] > 5000 and worker["move_by"] > now + 5000


def test_a_requeued_worker_is_queued_and_one_that_has_failed_is_offline(site):
    waiting = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Resources")
    deploy(site.run, "stubs-0", said={"stubs-0": waiting})
    gone = msgspec.structs.replace(site.stub.record, state=WorkerState.GONE, reason="walltime")
    site.run.write_worker(gone)
    site.start()
    assert (models(site)["stub-model"]["state"], models(site)["stub-model"]["reason"]) == ("queued", "Resources")
    worker = site.json("/status.json")["workers"][0]
    assert (worker["state"], worker["reason"], worker["starts_in_s"]) == ("queued", "Resources", None)
    site.run.write_queue(QueueRecord(written_at=time.time(), workers={}))
    assert (models(site)["stub-model"]["state"], models(site)["stub-model"]["reason"]) == ("offline", "walltime")


def test_a_starting_model_says_how_long_its_pool_takes(site):
    site.run.write_worker(msgspec.structs.replace(site.stub.record, state=WorkerState.GONE, load_s=90.0, model="old"))
    site.fleet.add("stubs-1").publish(WorkerState.STARTING)
    site.start()
    model = models(site)["stub-model"]
    assert model["state"] == "starting" and 0 < model["time_left_s"] <= 90


def test_workers_are_shown_with_all_that_is_known(site):
    now = time.time()
    site.run.write_worker(msgspec.structs.replace(site.stub.record, ends_at=now + 1000))
    site.start()
    site.reports.hear(0, report())
    worker = site.json("/workers")["workers"][0]
    known = {
        "id": "stubs-0", "state": "ready", "url": None, "in_flight": 3, "capacity": 4, "model": "stub-model",
        "healthy": True, "reason": "",
    }  # fmt: skip
    assert worker | known == worker
    assert 900 < worker["seconds_left"] <= 1000 and worker["ends_at"] == now + 1000
    assert (worker["pool"], worker["engine"], worker["prefill_rate"], worker["decode_rate"]) == (
        "stubs", "native", 5000.0, 40.0,
    )  # fmt: skip


def test_a_draining_worker_still_shows_what_is_in_flight(site):
    site.stub.publish(WorkerState.DRAINING)
    site.start()
    worker = site.json("/workers")["workers"][0]
    assert (worker["state"], worker["in_flight"]) == ("draining", 3)


def test_a_tenant_sees_its_own_usage_and_the_owner_that_of_all(site):
    site.usage["left"] = Usage(requests=1)
    site.start()
    own = site.json("/tenants", tenant="course")["tenants"]
    assert own == [
        {
            "name": "course", "priority": "default", "weight": 1.0, "requests_per_minute": 60, "tokens_per_day": None,
            "account": "physics", "tokens_today": 70, "requests": 5, "prompt_tokens": 100, "cached_tokens": 40,
            "generated_tokens": 20,
        }
    ]  # fmt: skip
    every = {tenant["name"]: tenant for tenant in site.json("/tenants")["tenants"]}
    assert sorted(every) == ["course", "left", "owner"]
    assert every["left"]["revoked"] and every["left"]["requests"] == 1


def test_the_status_is_the_deployment_at_a_glance(site):
    site.start()
    site.reports.hear(0, report())
    seen = site.json("/status.json", tenant="course")
    assert (seen["deployment"], seen["endpoint"]) == ("test", "http://10.0.0.7:30000/v1")
    assert seen["queue"] == {"interactive": 0, "default": 0, "batch": 4}
    assert (seen["requests"], seen["retries"], seen["failovers"], seen["failed_failovers"]) == (7, 2, 3, 1)
    assert (seen["workers"][0]["id"], seen["workers"][0]["in_flight"]) == ("stubs-0", 3)
    assert (seen["failed_requests"], seen["refused"], seen["ejections"]) == (0, 0, 0)
    assert (seen["tenant"], seen["is_admin"], seen["tls"]) == ("course", False, "off")
    assert [tenant["name"] for tenant in seen["tenants"]] == ["course"] and "key-of" not in str(seen)
    assert site.json("/status.json")["is_admin"] and len(site.json("/status.json")["tenants"]) == 2


def test_the_status_counts_what_failed_and_who_was_ejected(site):
    site.start()
    counters = counted()
    counters.count(counters.requests, ("/v1/chat/completions", 502), 2)
    counters.count(counters.refused, "queue_full", 4)
    site.reports.hear(0, report(counters=counters))
    site.fleet.worker("stubs-0").ejections = 1
    seen = site.json("/status.json")
    assert (seen["requests"], seen["failed_requests"], seen["refused"], seen["ejections"]) == (9, 2, 4, 1)


def test_the_status_has_the_walltime_of_jobs_and_the_workers_to_come(site):
    waiting = QueuedJob(phase=JobPhase.PENDING, state="PENDING", reason="Priority", starts_at=time.time() + 600)
    deploy(site.run, "stubs-0", "stubs-9", "large-0", said={"large-0": waiting})
    site.run.write_worker(msgspec.structs.replace(site.stub.record, ends_at=time.time() + 1000))
    site.start()
    seen = site.json("/status.json", tenant="course")
    assert (seen["workers"][0]["walltime_s"], seen["workers"][0]["ejected"]) == (3600, False)
    large, stub = seen["expected_workers"]
    assert (stub["id"], stub["state"], stub["starts_in_s"], stub["obstacle"]) == ("stubs-9", "queued", None, "")
    assert 500 < large.pop("starts_in_s") <= 600
    assert (large["id"], large["pool"], large["model"]) == ("large-0", "large", "large-model")
    assert (large["state"], large["reason"], large["obstacle"]) == ("queued", "Priority", "")


def test_a_job_whose_workers_have_records_is_not_expected_and_counts_once(site):
    deploy(site.run, "stubs-0", "stubs-9")
    for number in range(2):
        site.run.write_worker(msgspec.structs.replace(site.stub.record, id=f"stubs-9.{number}"))
    site.start()
    seen = site.json("/status.json", tenant="course")
    assert [worker["id"] for worker in seen["workers"]] == ["stubs-0", "stubs-9.0", "stubs-9.1"]
    assert seen["expected_workers"] == []
    assert next(pool["present"] for pool in seen["pools"] if pool["name"] == "stubs") == 2


def test_metrics_are_the_sum_of_all_relays_and_what_is_true_now(site):
    site.start()
    site.reports.hear(0, report())
    site.reports.hear(1, report())
    site.reports.ended(1)
    site.ask("/nonsense")
    text = site.ask("/metrics", tenant="metrics").text
    for line in [
        'slurminfer_router_requests_total{path="/v1/chat/completions",status="200"} 14.0',
        'slurminfer_router_requests_total{path="other",status="404"} 1.0',
        'slurminfer_router_first_byte_seconds_count{path="/v1/chat/completions"} 2.0',
        'slurminfer_router_first_byte_seconds_bucket{le="0.25",path="/v1/chat/completions"} 0.0',
        'slurminfer_router_first_byte_seconds_bucket{le="0.5",path="/v1/chat/completions"} 2.0',
        "slurminfer_router_inter_token_seconds_count 2.0",
        "slurminfer_router_retries_total 4.0",
        'slurminfer_router_failovers_total{kind="stream",outcome="succeeded"} 6.0',
        'slurminfer_router_upstream_errors_total{kind="lost",worker="stubs-0"} 2.0',
        'slurminfer_router_choices_total{reason="cache"} 10.0',
        "slurminfer_router_expected_cached_tokens_total 1280.0",
        'slurminfer_router_worker_in_flight{worker="stubs-0"} 3.0',
        'slurminfer_router_worker_capacity{worker="stubs-0"} 4.0',
        'slurminfer_router_worker_healthy{worker="stubs-0"} 1.0',
        'slurminfer_router_worker_state{state="ready",worker="stubs-0"} 1.0',
        'slurminfer_router_queued{priority="batch"} 4.0',
        'slurminfer_router_connections{state="trusted"} 9.0',
        'slurminfer_router_tenant_cached_tokens_total{tenant="course"} 40.0',
    ]:
        assert line in text
    assert list(text_string_to_metric_families(text))


def test_metrics_say_how_many_workers_each_pool_should_have_and_has(site):
    deploy(site.run, "stubs-0", "stubs-1")
    pools = {"stubs": PoolRecord(wanted=3, may_come=True), "large": PoolRecord(wanted=1, gave_up=True, waits="no GPU")}
    site.run.write_fleet(FleetRecord(written_at=time.time(), pools=pools))
    site.start()
    lines = site.ask("/metrics").text.splitlines()
    for name, stubs, large in (
        ("wanted_workers", 3, 1), ("present_workers", 2, 0), ("ready_workers", 1, 0), ("gave_up", 0, 1)
    ):  # fmt: skip
        assert f'slurminfer_router_pool_{name}{{pool="stubs"}} {stubs}.0' in lines
        assert f'slurminfer_router_pool_{name}{{pool="large"}} {large}.0' in lines
    shown = {pool["name"]: pool for pool in site.json("/status.json")["pools"]}
    assert shown["large"]["reason"] == "none is started any more: no GPU"
    assert models(site)["large-model"]["reason"] == "none is started any more: no GPU"


def test_what_can_be_known_is_0_before_anything_has_happened(site):
    site.usage = {}
    site.start()
    text = site.ask("/metrics", tenant="metrics").text
    for line in [
        'slurminfer_router_refused_total{reason="queue_full"} 0.0',
        'slurminfer_router_refused_total{reason="key"} 0.0',
        'slurminfer_router_failovers_total{kind="stream",outcome="failed"} 0.0',
        'slurminfer_router_hedges_total{outcome="sent"} 0.0',
        'slurminfer_router_responses_not_kept_total{reason="no_space"} 0.0',
        'slurminfer_router_responses_removed_total{reason="expired"} 0.0',
        'slurminfer_router_choices_total{reason="spread"} 0.0',
        'slurminfer_router_queue_seconds_count{priority="batch"} 0.0',
        'slurminfer_router_upstream_errors_total{kind="lost",worker="stubs-0"} 0.0',
        'slurminfer_router_worker_requests_total{worker="stubs-0"} 0.0',
        'slurminfer_router_worker_generated_tokens_total{worker="stubs-0"} 0.0',
        'slurminfer_router_tenant_requests_total{tenant="course"} 0.0',
    ]:
        assert line in text, line
    assert 'tenant="metrics"' not in text


def test_everything_that_is_counted_has_a_name_and_nothing_has_two():
    assert metrics.COUNTED.keys() == set(Counters.__struct_fields__)
    assert metrics.TENANT_COUNTED.keys() == set(Usage.__struct_fields__)
    names = [name for name, *_ in (*metrics.COUNTED.values(), *metrics.TENANT_COUNTED.values())]
    names += [name for name, _ in metrics.POOL_GAUGES.values()]
    names += [*metrics.WORKER_GAUGES, *(one[0] for one in (metrics.IN_FLIGHT, metrics.STATE, metrics.EJECTIONS))]
    assert len(names) == len(set(names))


def test_all_histograms_are_rendered_as_such():
    sample = counted()
    sample.time(sample.duration, "x", 1.0)
    sample.time(sample.queue_time, "x", 1.0)
    for name in Counters.__struct_fields__:
        value = getattr(sample, name)
        values = value.values() if isinstance(value, dict) else [value]
        assert any(isinstance(one, Histogram) for one in values) is (name in metrics._HISTOGRAMS), name


def test_the_load_of_every_pool(site):
    site.start()
    site.demand.hear(0, [LaneLoad(model="large-model", pools=(), waiting=2, waited_s=4.0, idle_s=0.0)])
    pools = site.json("/load")["pools"]
    assert pools["large"].keys() == {"in_flight", "waiting", "waited_s", "idle_s"}
    assert (pools["large"]["waiting"], pools["large"]["idle_s"]) == (2, 0.0) and pools["large"]["waited_s"] >= 4.0
    assert (pools["stubs"]["in_flight"], pools["stubs"]["waiting"]) == (3, 0)
