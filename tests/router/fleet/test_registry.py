"""How the supervisor finds workers, loses sight of them, and ejects them, through a real run directory."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.router.fleet import attendant, engine_load, probe, records, trust

from ...support.waiting import eventually


@pytest.fixture
def quick(monkeypatch):
    """Nobody waits for seconds here."""
    monkeypatch.setattr(attendant, "HEALTH_INTERVAL_S", 0.02)
    monkeypatch.setattr(attendant, "LOAD_INTERVAL_S", 0.02)
    monkeypatch.setattr(trust, "_SAME_MOMENT_S", 0.0)
    monkeypatch.setattr(trust, "FIRST_WAIT_S", 0.02)


def test_the_first_look_sees_the_whole_fleet(fleet):
    fleet.start()
    assert fleet.choosable() == ["cpu-0", "cpu-1"]
    view = fleet.views()["cpu-0"]
    assert (view.state, view.trouble, view.capacity, view.key) == ("ready", "", 4, "key-of-cpu-0")
    assert Path(view.identity).name == "cpu-0.0.pem"
    assert len({view.slot for view in fleet.registry.views()}) == 2


def test_changes_are_announced(fleet):
    fleet.start()
    fleet.registry.changed.clear()
    fleet.add("cpu-2")
    fleet.wait_for("cpu-0", "cpu-1", "cpu-2")
    assert fleet.registry.changed.is_set()


def test_heartbeats_are_no_changes(fleet):
    fleet.start()
    eventually(lambda: all(fleet.worker(name).card is not None for name in fleet.views()))
    fleet.registry.changed.clear()
    heard, stub = fleet.worker("cpu-0").heard_at, fleet._deployment.stubs[0]
    stub.publish()
    eventually(lambda: fleet.worker("cpu-0").heard_at > heard)
    assert not fleet.registry.changed.is_set()


def test_a_worker_that_does_not_answer_is_not_chosen(fleet):
    fleet._deployment.stubs[0].stop()
    fleet.start()
    assert fleet.choosable() == ["cpu-1"]
    assert "no way to the worker" in fleet.views()["cpu-0"].trouble
    assert fleet.registry.counts()["unreachable"] == 1


def test_a_worker_with_nonsense_for_an_address_disturbs_nobody(fleet):
    fleet._deployment.stubs[0].socket = Path("not a socket\0")
    fleet._deployment.stubs[0].publish()
    fleet.start()
    assert fleet.choosable() == ["cpu-1"]


def test_a_requeued_worker_is_a_new_life_with_a_slot_of_its_own(fleet):
    fleet.start()
    before = fleet.views()["cpu-0"]
    fleet._deployment.stubs[0].publish(epoch=1)
    eventually(lambda: fleet.views()["cpu-0"].epoch == 1)
    assert fleet.views()["cpu-0"].slot != before.slot


def test_a_vanished_record_takes_the_worker_out(fleet, monkeypatch):
    monkeypatch.setattr(records, "VANISHED_S", 0.2)
    fleet.start()
    (fleet.run.workers_path / "cpu-0.json").unlink()
    eventually(lambda: list(fleet.views()) == ["cpu-1"])


def test_when_all_workers_have_ended_that_they_are_forgotten_is_no_trouble(fleet, caplog):
    fleet.start()
    for stub in fleet._deployment.stubs:
        stub.publish(WorkerState.GONE)
    eventually(lambda: all(worker.record.state is WorkerState.GONE for worker in fleet.registry.all()))
    for worker in ("cpu-0", "cpu-1"):
        fleet.run.forget_workers({worker})
    eventually(lambda: not fleet.registry.all())
    assert "become empty" not in caplog.text


def test_a_draining_worker_gets_nothing_and_says_when_its_requests_must_have_moved(fleet):
    stub = fleet._deployment.stubs[0]
    fleet.start()
    now = time.time()
    ending = msgspec.structs.replace(
        stub.record, state=WorkerState.DRAINING, reason="walltime", drain_until=now + 48, ends_at=now + 60
    )
    fleet.run.write_worker(ending)
    fleet.wait_for("cpu-1")
    view = fleet.views()["cpu-0"]
    assert (view.state, view.trouble, view.move_by) == ("draining", "walltime", now + 44)


def test_the_walltime_limit_moves_what_no_signal_has_moved(fleet):
    stub = fleet._deployment.stubs[0]
    fleet.run.write_worker(msgspec.structs.replace(stub.record, ends_at=5000.0))
    fleet.start()
    assert fleet.views()["cpu-0"].move_by == 4990.0
    assert fleet.views()["cpu-1"].move_by is None


def test_a_refused_connection_has_the_worker_asked_at_once(fleet):
    """With the usual pauses: within the second between two probes, nothing else could say it."""
    fleet.start()
    fleet._deployment.stubs[0].health = 503
    fleet.suspect("cpu-0", "connect")
    fleet.wait_for("cpu-1")
    assert fleet.views()["cpu-0"].trouble == "/health answers 503"


def test_a_refused_connection_ejects_no_worker_that_answers(fleet, quick):
    fleet.start()
    for _ in range(20):
        fleet.suspect("cpu-0", "connect")
    assert fleet.choosable() == ["cpu-0", "cpu-1"]


def test_a_healthy_worker_whose_requests_fail_is_ejected_and_returns_with_a_token(fleet, quick):
    fleet.start()
    stub = fleet._deployment.stubs[0]
    stub.mode = "cut"
    for _ in range(3):
        fleet.suspect("cpu-0", "stream")
    assert fleet.choosable() == ["cpu-1"]
    assert fleet.views()["cpu-0"].trouble == "its requests fail: it broke off"
    eventually(lambda: stub.probes > 1, "it is asked again, and its health alone does not help")
    assert fleet.choosable() == ["cpu-1"]
    stub.mode = "answer"
    fleet.wait_for("cpu-0", "cpu-1")
    assert fleet.views()["cpu-0"].healthy_since is not None
    assert fleet.worker("cpu-0").ejections == 1


def test_the_last_worker_of_a_model_is_not_ejected_for_its_faults(fleet, quick):
    fleet.start()
    for name in ("cpu-0", "cpu-1"):
        for _ in range(5):
            fleet.suspect(name, "lost")
    assert len(fleet.choosable()) == 1


def test_a_worker_that_generates_nothing_while_idle_is_ejected(fleet, quick, monkeypatch):
    monkeypatch.setattr(trust, "IDLE_S", 0.05)
    fleet._deployment.stubs[0].mode = "hang"  # its health is good, and it answers 500
    fleet.start()
    fleet.wait_for("cpu-1")
    assert "a request for a token is answered with 500" in fleet.views()["cpu-0"].trouble


def test_an_engine_that_computes_for_others_is_not_ejected_for_a_token_that_is_late(fleet, quick, monkeypatch):
    """Whoever waits for a token behind others sees the engine's own counter rise."""
    monkeypatch.setattr(trust, "IDLE_S", 0.3)
    stub = fleet._deployment.stubs[0]
    stub.mode, stub.generating = "hang", True
    fleet.start()
    eventually(lambda: fleet.worker("cpu-0").load.tokens_per_s)
    probes = stub.probes
    eventually(lambda: fleet.worker("cpu-0").load.generated > 50)
    assert stub.probes - probes <= 1 and fleet.choosable() == ["cpu-0", "cpu-1"]


def test_client_errors_eject_nobody(fleet, quick, monkeypatch):
    monkeypatch.setattr(trust, "IDLE_S", 0.05)
    stub = fleet._deployment.stubs[0]
    stub.status = 400  # to every request, as an engine for embeddings answers those for text
    fleet.start()
    eventually(lambda: stub.probes > 3)
    assert fleet.choosable() == ["cpu-0", "cpu-1"]


def test_the_last_worker_of_a_model_stays_when_its_health_page_is_late(fleet, quick, monkeypatch):
    monkeypatch.setattr(probe, "_ANSWER_TIMEOUT_S", 0.05)
    fleet.start()
    for stub in fleet._deployment.stubs:
        stub.mode = "stop"
    eventually(lambda: len(fleet.choosable()) == 1)
    last = next(stub for stub in fleet._deployment.stubs if stub.id == fleet.choosable()[0])
    late = last.health_asked
    eventually(lambda: last.health_asked >= late + 3)
    assert fleet.choosable() == [last.id]
    last.mode, last.health = "answer", 503
    fleet.wait_for()


def test_a_silent_worker_is_asked_for_a_token_at_once(fleet):
    """With the usual pauses: within them, nothing else could say it."""
    fleet.start()
    stub = fleet._deployment.stubs[0]
    stub.mode = "hang"  # its health is good, and it answers 500
    fleet.suspect("cpu-0", "silent", "nothing has come for 5 s")
    fleet.wait_for("cpu-1")
    view = fleet.views()["cpu-0"]
    assert view.has_stopped and "a request for a token is answered with 500" in view.trouble


def test_a_silent_worker_that_makes_a_token_stays(fleet):
    fleet.start()
    stub = fleet._deployment.stubs[0]
    fleet.suspect("cpu-0", "silent")
    eventually(lambda: stub.probes == 1)
    assert fleet.choosable() == ["cpu-0", "cpu-1"]


def test_a_silent_worker_whose_health_is_bad_has_stopped(fleet):
    fleet.start()
    stub = fleet._deployment.stubs[0]
    stub.health = 503
    fleet.suspect("cpu-0", "silent")
    fleet.wait_for("cpu-1")
    eventually(lambda: fleet.views()["cpu-0"].has_stopped)
    assert not stub.probes
    stub.health = 200
    fleet.wait_for("cpu-0", "cpu-1")
    assert not fleet.views()["cpu-0"].has_stopped


def test_the_last_worker_has_a_second_chance(fleet):
    fleet._deployment.stubs[1].stop()
    fleet.start()
    stub = fleet._deployment.stubs[0]
    stub.mode = "hang"
    fleet.suspect("cpu-0", "silent")
    eventually(lambda: stub.probes == 1)
    assert fleet.choosable() == ["cpu-0"]
    fleet.suspect("cpu-0", "silent")
    fleet.wait_for()


def test_a_worker_that_refuses_what_others_answer_is_ejected_until_it_does_not(fleet, quick):
    fleet.start()
    stub = fleet._deployment.stubs[0]
    stub.status = 400
    fleet.suspect("cpu-0", "refusing")
    fleet.wait_for("cpu-1")
    assert fleet.views()["cpu-0"].trouble == "a request for a token is answered with 400"
    stub.status = 200
    fleet.wait_for("cpu-0", "cpu-1")


def test_a_worker_has_as_long_for_a_token_as_its_load_explains(fleet, quick):
    fleet.start()
    worker, asked = fleet.worker("cpu-0"), fleet.registry._attendants[fleet.worker("cpu-0")]
    for running, waiting, seconds in ((None, None, 15), (0, 0, 5), (0, 3, 15), (2, 0, 120)):
        worker.load = engine_load.EngineLoad(running=running, waiting=waiting)
        assert asked._token_timeout_s(True) == seconds


def test_what_the_engine_says_of_its_load_is_passed_on(fleet, quick):
    stub = fleet._deployment.stubs[0]
    stub.metrics = (
        "slurminfer_engine_running_requests 3.0\nslurminfer_engine_waiting_requests 2.0\n"
        "slurminfer_engine_kv_blocks_total 100.0\nslurminfer_engine_kv_block_tokens 16.0\n"
    )
    fleet.start()
    eventually(lambda: fleet.views()["cpu-0"].running == 3)
    view = fleet.views()["cpu-0"]
    assert (view.waiting, view.cache_tokens) == (2, 1600)
    stub.metrics = "garbage { \xff"
    assert fleet.choosable() == ["cpu-0", "cpu-1"]


def test_how_long_workers_of_a_pool_take_to_start_is_remembered(fleet):
    stub = fleet._deployment.stubs[0]
    fleet.run.write_worker(msgspec.structs.replace(stub.record, load_s=12.5))
    fleet.start()
    assert fleet.registry.load_s == {"stubs": 12.5}


def test_worker_files_that_are_no_records_are_ignored(fleet):
    folder = fleet.run.workers_path
    record = (folder / "cpu-0.json").read_text()
    (folder / "torn.json").write_text('{"id": "torn", ')
    (folder / "alien-1.json").write_text('{"hello": "world"}')
    (folder / "future-1.json").write_text(record.replace('"version": 2', '"version": 99'))
    (folder / "copy-1.json").write_text(record)
    (folder / "old-1.json").write_text(json.dumps({**json.loads(record), "id": "old-1", "version": 1}))
    (folder / "notes.txt").write_text("hi")
    (folder / "folder-1.json").mkdir()
    fleet.start()
    assert fleet.choosable() == list(fleet.views()) == ["cpu-0", "cpu-1"]
