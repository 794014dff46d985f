"""Several workers of one job, as the controller sees them."""

from typing import Any

import msgspec
import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.records import EnergyRecord, WorkerRecord, WorkerState
from slurminfer.jobs.fleet.together import live_by_role, records_by_role


def record(number: int, state: str, **changes) -> WorkerRecord:
    known = WorkerRecord(
        id=f"cpu-0.{number}", pool="cpu", engine="native", model="m", state=WorkerState(state), host="n1", job="7",
        epoch=0, pid=100 + number, updated_at=50.0 + number, capacity=8,
    )  # fmt: skip
    return msgspec.structs.replace(known, **changes)


def together(*records: WorkerRecord) -> WorkerRecord:
    found = records_by_role({one.id: one for one in records})
    assert list(found) == ["cpu-0"]
    joined = found["cpu-0"]
    assert isinstance(joined, WorkerRecord)
    return joined


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["ready", "ready"], "ready"),
        (["ready", "starting"], "starting"),
        (["ready", "gone"], "ready"),  # it is being started again
        (["draining", "ready"], "ready"),
        (["draining", "gone"], "draining"),
        (["gone", "gone"], "gone"),
    ],
)
def test_a_job_is_ready_when_its_workers_are(states, expected):
    assert together(*(record(number, state) for number, state in enumerate(states))).state == expected


def test_capacities_add_up_and_the_most_silent_counts():
    joined = together(record(0, "ready", load_s=3.0), record(1, "ready", load_s=5.0), record(2, "gone", updated_at=1.0))
    assert (joined.id, joined.job, joined.capacity, joined.updated_at, joined.load_s) == ("cpu-0", "7", 16, 50.0, 5.0)


def test_an_earlier_run_of_the_job_does_not_count():
    assert together(record(0, "gone"), record(1, "starting", epoch=1)).state == "starting"


def test_reasons_and_remarks_are_kept():
    joined = together(record(0, "ready", remark="slow"), record(1, "gone", reason="died", remark="slow"))
    assert (joined.reason, joined.remark) == ("died", "slow")


def test_energies_add_up_where_all_are_known():
    drawn = EnergyRecord(cpu_j=10.0)
    joined = together(record(0, "ready", energy=drawn), record(1, "ready", energy=drawn))
    assert joined.energy == EnergyRecord(cpu_j=20.0)
    assert together(record(0, "ready", energy=drawn), record(1, "ready")).energy is None


def test_workers_with_a_job_to_themselves_stay_as_they_are():
    alone, error = record(0, "ready", id="gpu-3"), RunDirectoryError("damaged")
    found = records_by_role({"gpu-3": alone, "gpu-4": error, "cpu-0.0": error, "cpu-0.1": record(1, "ready")})
    assert found["gpu-3"] is alone and found["gpu-4"] is error
    assert isinstance(found["cpu-0"], WorkerRecord)
    assert records_by_role({"cpu-0.0": error}) == {"cpu-0": error}


def test_what_the_router_sees_is_added_up():
    ready: dict[str, Any] = {"state": "ready", "healthy": True, "in_flight": 3}
    live = {"cpu-0.0": ready, "cpu-0.1": ready, "gpu-0": {"state": "ready"}}
    assert live_by_role(live) == {
        "cpu-0": {"state": "ready", "healthy": True, "in_flight": 6}, "gpu-0": {"state": "ready"},
    }  # fmt: skip
    found = live_by_role({"cpu-0.0": ready, "cpu-0.1": ready | {"healthy": False}})
    assert found is not None and found["cpu-0"]["healthy"] is False
    starting = live_by_role({"cpu-0.0": ready, "cpu-0.1": {"state": "starting", "healthy": False}})
    assert starting is not None and starting["cpu-0"]["healthy"] is True
    assert live_by_role(None) is None
