"""How batches end that are not completed: cancelled, expired, refused, or without a way to go on."""

import openai
import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.router.batches import limits

from .conftest import row


def begun(service, count=6, **fields):
    """A batch of which the stub holds back every answer."""
    service.stub.mode = "hang"
    batch = service.create(*(row(f"r{n}", f"q{n}") for n in range(count)), **fields)
    service.until(batch.id, "in_progress")
    return batch


def sent(service):
    return [path for path, _, body in service.stub.requests if b'"q' in body]


def test_cancelling_delivers_what_is_done(service, eventually, monkeypatch):
    monkeypatch.setattr("slurminfer.jobs.batch.driver.driver.STOP_S", 0.2)
    batch = begun(service)
    eventually(lambda: service.manager.tick() and len(sent(service)) == 6)
    asked = service.client.batches.cancel(batch.id)
    assert asked.status == "cancelling" and asked.cancelling_at is not None
    assert service.client.batches.cancel(batch.id).cancelling_at == asked.cancelling_at
    ended = service.until(batch.id, "cancelled")
    assert ended.cancelling_at == asked.cancelling_at <= ended.cancelled_at and ended.output_file_id is None
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (6, 0, 6)
    lines = service.lines(ended.error_file_id)
    assert {line["error"]["code"] for line in lines} == {"batch_cancelled"} and len(lines) == 6
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'cancelled'"):
        service.client.batches.cancel(batch.id)


def test_requests_in_flight_are_let_end_when_a_batch_is_cancelled(service, eventually):
    service.stub.delay_s = 1.5
    batch = service.create(row("a", "q1"))
    eventually(lambda: service.manager.tick() and sent(service))
    service.client.batches.cancel(batch.id)
    ended = service.until(batch.id, "cancelled")
    assert ended.request_counts.completed == 1
    assert [line["custom_id"] for line in service.lines(ended.output_file_id)] == ["a"]


def test_a_batch_is_cancelled_before_anybody_has_looked_at_it(service):
    batch = service.create(row("a"))
    service.client.batches.cancel(batch.id)
    ended = service.until(batch.id, "cancelled")
    assert ended.output_file_id is None and not sent(service)


def test_a_batch_that_outlives_its_window_expires_with_what_is_done(service, eventually, monkeypatch):
    monkeypatch.setattr("slurminfer.jobs.batch.driver.driver.STOP_S", 0.2)
    service.stub.capacity = None
    batch = begun(service, output_expires_after={"anchor": "created_at", "seconds": 3600})
    eventually(lambda: service.manager.tick() and len(sent(service)) == 6)
    service.ahead_s = limits.WINDOW_S + 1
    ended = service.until(batch.id, "expired")
    assert ended.expired_at >= ended.expires_at and ended.completed_at is None
    assert {line["error"]["code"] for line in service.lines_at(ended.error_file_id)} == {"batch_expired"}
    file = service.store.files.get("owner", ended.error_file_id)
    assert file.expires_at == file.created_at + 3600


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ([row("a"), row("a")], "duplicate_custom_id", 2),
        ([b"{\n", row("a")], "invalid_json_line", 1),
        ([row("a"), b"[1]\n"], "invalid_json_line", 2),
        ([b'{"custom_id": "a", "custom_id": "b"}\n'], "invalid_json_line", 1),
        ([row("a"), row("b", url="/v1/completions")], "invalid_url", 2),
        ([row("a"), row("b", model="other")], "mismatched_model", 2),
        ([row("a", model="other")], "model_not_found", 1),
        ([row("a", stream=True)], "invalid_body", 1),
        ([row("")], "invalid_custom_id", 1),
        ([row("a" * 513)], "invalid_custom_id", 1),
        ([{**row("a"), "custom_id": 1}], "invalid_custom_id", 1),
        ([{**row("a"), "method": "GET"}], "invalid_method", 1),
        ([{**row("a"), "priority": 1}], "unknown_parameter", 1),
        ([{**row("a"), "body": []}], "invalid_body", 1),
        ([b"\n\n"], "empty_file", None),
        ([b""], "empty_file", None),
        ([b"\xff\xfe\n"], "invalid_json_line", 1),
        ([b"[" * 100_000 + b"\n"], "invalid_json_line", 1),
    ],
)
def test_an_input_that_is_none_fails_and_says_where(service, lines, code, line):
    failed = service.until(service.create(*lines).id, "failed", "completed")
    assert failed.status == "failed" and failed.failed_at is not None
    assert (failed.errors.data[0].code, failed.errors.data[0].line) == (code, line)
    assert failed.errors.object == "list" and len(failed.errors.data[0].message) < 1000
    assert not sent(service)


def test_only_so_many_errors_are_told(service):
    failed = service.until(service.create(*[b"x\n"] * 500).id, "failed")
    assert len(failed.errors.data) == limits.MOST_ERRORS


def test_more_requests_than_a_batch_may_have(service, monkeypatch):
    monkeypatch.setattr(limits, "MOST_REQUESTS", 3)
    failed = service.until(service.create(*(row(str(n)) for n in range(4))).id, "failed")
    assert failed.errors.data[0].code == "too_many_requests"


def test_blank_lines_are_no_requests(service):
    batch = service.create(row("a"), b"\n", b"  \r\n", row("b"), b"\n")
    done = service.until(batch.id, "completed", "failed")
    assert done.request_counts.total == 2
    assert [line["custom_id"] for line in service.lines(done.output_file_id)] == ["a", "b"]


def test_the_input_may_be_deleted_while_a_batch_is_at_work(service):
    batch = service.create(row("a"))
    service.client.files.delete(batch.input_file_id)
    assert service.until(batch.id, "completed", "failed").status == "completed"


def test_a_batch_that_cannot_go_on_fails_with_the_reason_and_what_is_done(service, monkeypatch):
    monkeypatch.setattr("slurminfer.jobs.batch.openai.manager._FIRST_PAUSE_S", 0.0)

    def no_room(*_):
        raise BatchError("cannot write the ledger: No space left on device")

    monkeypatch.setattr("slurminfer.jobs.batch.openai.work.run_batch", no_room)
    failed = service.until(service.create(row("a")).id, "failed")
    assert "No space left on device" in failed.errors.data[0].message
    assert [step for _, step in service.steps].count("do") == 5
    assert {line["error"]["code"] for line in service.lines(failed.error_file_id)} == {"batch_failed"}
    monkeypatch.setattr("slurminfer.jobs.batch.openai.work.run_batch", run_batch)
    assert service.until(service.create(row("b")).id, "completed", "failed").status == "completed"
