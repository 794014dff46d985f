"""Probes, and the bytes of events: pure functions."""

from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.router.fleet.worker import Worker
from slurminfer.router.relay.events import EventGate


def record(worker_id="w", **fields):
    base = dict(pool="p", engine="native", model="m", state=WorkerState.READY, host="h", job="1", epoch=0, pid=1)
    return WorkerRecord(id=worker_id, updated_at=0.0, url="http://h:1", **{**base, **fields})


def worker(worker_id):
    return Worker(record(worker_id))


def test_a_probe_that_began_before_a_failure_does_not_clear_it():
    one = worker("w")
    one.suspect("connection refused")
    one.probed(one.suspected_at - 0.1, "")
    assert not one.healthy
    one.probed(one.suspected_at + 0.1, "")
    assert one.healthy


EVENTS = [b"data: {}\n\n", b"data: a\r\ndata: b\r\n\r\n", b": ping\n\n", b"event: x\ndata: y\n\n"]


@given(
    st.lists(st.sampled_from(EVENTS)),
    st.lists(st.integers(min_value=1, max_value=30)),
    st.sampled_from([b"", b"data: half"]),
)
def test_event_gate_passes_all_bytes_and_only_whole_events(events, cuts, rest):
    whole = b"".join(events)
    data, passed, gate = whole + rest, b"", EventGate()
    while data:
        size = cuts.pop() if cuts else len(data)
        passed += gate.feed(data[:size])
        assert passed == b"" or passed.endswith((b"\n\n", b"\r\n\r\n"))
        data = data[size:]
    assert passed == whole and gate.rest() == rest
