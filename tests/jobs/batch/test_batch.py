"""A whole batch against a real HTTP server."""

import json
import threading
import time

import pytest
from aiohttp import web

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch import endpoint as batch_endpoint
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.endpoint import Address
from slurminfer.jobs.batch.report.tally import BatchState

from ...support.waiting import eventually


def test_prompts_and_messages_get_texts(batch):
    batch.lines(
        {"id": "a", "prompt": "one", "max_tokens": 3, "guided_json": {"x": 1}},
        {"messages": [{"role": "user", "content": "two"}]},
    )
    summary = batch.run()
    assert (summary.total, summary.done, summary.failed, summary.tokens) == (2, 2, 0, 10)
    usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
    assert sorted(batch.results(), key=lambda result: str(result["id"])) == [
        {"id": 2, "text": "echo two", "finish_reason": "stop", "usage": usage, "model": "stub"},
        {"id": "a", "text": "echo one", "finish_reason": "stop", "usage": usage, "model": "stub"},
    ]
    sent = dict(batch.endpoint.bodies)
    assert sent["/v1/completions"] == {"model": "stub", "prompt": "one", "max_tokens": 3, "guided_json": {"x": 1}}
    assert "/v1/chat/completions" in sent
    assert batch.endpoint.priorities == {"batch"}


def test_openai_batch_lines_get_openai_batch_results(batch):
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}]}
    batch.lines({"custom_id": "c1", "method": "POST", "url": "/v1/chat/completions", "body": body})
    assert batch.run().done == 1
    (result,) = batch.results()
    assert result.pop("id").startswith("batch_req_")
    answer = result["response"].pop("body")
    assert answer["choices"][0]["message"]["content"] == "echo hi"
    assert result == {"custom_id": "c1", "response": {"status_code": 200, "request_id": "req-hi"}, "error": None}
    assert batch.endpoint.bodies == [("/v1/chat/completions", body)]
    assert batch.run().skipped == 1


def test_defaults_count_only_where_the_line_does_not_say(batch):
    batch.lines(
        {"prompt": "a"},
        {"prompt": "b", "max_tokens": 1, "temperature": 1.0},
        {"prompt": "c", "max_completion_tokens": 2},
    )
    batch.run(defaults={"max_tokens": 9, "temperature": 0.0})
    sent = {body.pop("prompt"): body for _, body in batch.endpoint.bodies}
    assert sent["a"] == {"model": "stub", "max_tokens": 9, "temperature": 0.0}
    assert sent["b"] == {"model": "stub", "max_tokens": 1, "temperature": 1.0}
    assert sent["c"] == {"model": "stub", "max_completion_tokens": 2, "temperature": 0.0}


def test_bad_lines_are_reported_by_number_and_do_not_stop_the_rest(batch):
    batch.lines(
        {"id": "a", "prompt": "a"},
        b'{"id": "torn',
        {"id": "a", "prompt": "again"},
        {"id": "b"},
        b"",
        {"id": "c", "prompt": 3},
        {"id": True, "prompt": "x"},
        b"[1]",
        b"\xff",
        {"id": "d", "prompt": "d", "stream": True},
        {"id": "e", "prompt": "e", "n": 2},
        {"custom_id": "f", "url": "/admin", "body": {}},
        b'{"prompt":' + b"[" * 20_000,
        {"id": "z", "prompt": "z"},
    )
    summary = batch.run()
    assert batch.ids() == ["a", "z"]
    assert (summary.total, summary.done, summary.failed, summary.errors) == (13, 2, 11, batch.errors_path)
    assert [(error["line"], error["id"]) for error in batch.errors()] == [
        (2, None), (3, "a"), (4, "b"), (6, "c"), (7, None), (8, None), (9, None), (10, "d"), (11, "e"), (12, "f"),
        (13, None),
    ]  # fmt: skip
    assert "id 'a' has occurred before" in batch.errors()[1]["error"]


def test_a_line_that_the_endpoint_refuses_is_that_lines_error(batch):
    batch.prompts(3)
    batch.endpoint.faults["p1"] = [400]
    summary = batch.run()
    assert batch.ids() == ["p0", "p2"]
    assert batch.errors() == [{"line": 2, "id": "p1", "status": 400, "error": "stub says 400"}]
    assert summary.failed == 1
    assert batch.run().failed == 0, "tried again by the next run"
    assert batch.ids() == ["p0", "p1", "p2"]
    assert not batch.errors_path.exists()


@pytest.mark.parametrize("fault", [408, 425, 429, 500, 502, 503, "cut", "drop", "mush"])
def test_what_may_pass_is_tried_again(batch, fault):
    batch.prompts(3)
    batch.endpoint.faults["p1"] = [fault] * 2
    assert batch.run().done == 3
    assert batch.ids() == ["p0", "p1", "p2"]
    assert len(batch.endpoint.bodies) == 5


def test_a_line_that_makes_the_endpoint_fail_every_time_is_given_up(batch):
    batch.prompts(2)
    batch.endpoint.faults["p0"] = [500] * 100
    assert batch.run().failed == 1
    (error,) = batch.errors()
    assert (error["id"], error["status"], error["error"]) == ("p0", 500, "failed 3 times: HTTP 500: stub says 500")


def test_a_gateway_that_fails_longer_is_waited_out(batch):
    batch.prompts(1)
    batch.endpoint.faults["p0"] = [502] * 7
    assert batch.run().done == 1


def test_a_line_under_which_workers_were_lost_is_not_sent_again(batch):
    batch.prompts(2)
    lost = {"error": {"message": "2 workers were lost under this request", "code": "worker_lost"}}
    batch.endpoint.faults["p0"] = [web.json_response(lost, status=502)]
    assert batch.run().failed == 1
    assert len(batch.endpoint.bodies) == 2
    error = "2 workers were lost under this request"
    assert batch.errors() == [{"line": 1, "id": "p0", "status": 502, "error": error}]


def test_retry_after_is_honoured(batch):
    batch.prompts(1)
    batch.endpoint.faults["p0"] = [503]
    batch.endpoint.retry_after = "0.3"
    began = time.monotonic()
    batch.run()
    assert time.monotonic() - began >= 0.3


def test_an_outage_is_waited_out(batch):
    batch.prompts(20)
    batch.endpoint.delay_s = 0.05

    def restart():
        eventually(lambda: batch.endpoint.under_way)
        batch.endpoint.stop()
        batch.endpoint.start()

    down = threading.Thread(target=restart)
    down.start()
    summary = batch.run(concurrency=2)
    down.join()
    assert summary.done == 20
    assert batch.ids() == sorted(f"p{index}" for index in range(20))


def test_an_endpoint_that_moved_is_found_again(batch):
    batch.prompts(2)
    summary = batch.run(endpoint=Address("http://127.0.0.1:9/v1"), locate=lambda: Address(batch.endpoint.url))
    assert summary.done == 2


def test_a_batch_follows_a_change_while_the_old_endpoint_still_answers(batch, loop, monkeypatch):
    monkeypatch.setattr(batch_endpoint, "_FOLLOW_S", 0.01)
    batch.prompts(40)
    successor = type(batch.endpoint)(loop)
    batch.endpoint.delay_s = successor.delay_s = 0.01

    def locate() -> Address:
        return Address(successor.url if batch.endpoint.answered else batch.endpoint.url)

    try:
        summary = batch.run(concurrency=2, locate=locate)
    finally:
        successor.stop()
    assert summary.done == 40
    assert successor.answered and batch.endpoint.answered
    assert not batch.endpoint.answered.keys() & successor.answered.keys()


def test_an_endpoint_that_stays_away_ends_the_batch_and_says_what_to_do(batch):
    batch.prompts(2)
    batch.endpoint.faults = {"p1": [503] * 1000}
    with pytest.raises(BatchError, match=r"not answered a request .*stub says 503.*start the same command again"):
        batch.run(patience_s=0.3)
    assert batch.ids() == ["p0"]


def test_wrong_key_stops_at_once(batch):
    batch.prompts(100)
    with pytest.raises(BatchError, match="refuses the API key: wrong API key"):
        batch.run(key="wrong", model="stub")
    assert batch.output.read_bytes() == b""


def test_several_models_ask_for_a_choice(batch):
    batch.prompts(1)
    batch.endpoint.models = ["a", "b"]
    with pytest.raises(BatchError, match="serves a, b; say which model"):
        batch.run()
    batch.run(model="b")
    assert batch.endpoint.bodies[0][1]["model"] == "b"


def test_concurrency_fits_the_ready_workers(batch):
    batch.prompts(60)
    ready = {"state": "ready", "healthy": True, "capacity": 4}
    gone = {"state": "gone", "healthy": False, "capacity": 50}
    batch.endpoint.workers, batch.endpoint.delay_s = [ready, ready, gone], 0.03
    batch.run()
    assert batch.endpoint.most_under_way == 10, "8 x 1.25"


def test_concurrency_is_what_was_asked_for(batch):
    batch.prompts(20)
    batch.endpoint.workers, batch.endpoint.delay_s = [{"state": "ready", "healthy": True, "capacity": 50}], 0.03
    batch.run(concurrency=3)
    assert batch.endpoint.most_under_way == 3


def test_an_endpoint_that_does_not_tell_its_capacity_gets_32(batch):
    batch.prompts(100)
    batch.endpoint.delay_s = 0.05
    batch.run()
    assert batch.endpoint.most_under_way == 32


def test_progress_tells_the_whole_story(batch):
    batch.prompts(5)
    batch.run()
    with batch.input.open("a") as file:
        file.write(json.dumps({"prompt": "new"}) + "\nbad\n")
    seen: list[BatchState] = []
    run_batch(batch.options(), seen.append)
    last = seen[-1]
    assert (last.total, last.done, last.skipped, last.failed, last.tokens) == (7, 6, 5, 1, 5)
    assert last.left_s == 0 and last.tokens_per_s > 0
    assert seen[0].tokens == 0 and seen[0].left_s is None


def test_missing_input_and_output_onto_the_input_are_refused(batch):
    with pytest.raises(BatchError, match="no input file"):
        batch.run()
    batch.prompts(1)
    before = batch.input.read_bytes()
    with pytest.raises(BatchError, match="is the input"):
        batch.run(output=batch.input)
    assert batch.input.read_bytes() == before


def test_empty_input_makes_an_empty_output(batch):
    batch.lines()
    assert batch.run().total == 0
    assert batch.output.read_bytes() == b""


def test_a_batch_asks_for_as_much_as_workers_in_holes_of_the_schedule_could_compute(batch):
    batch.prompts(60)
    batch.endpoint.workers, batch.endpoint.delay_s = [{"state": "ready", "healthy": True, "capacity": 4}], 0.05
    batch.endpoint.may_be_added = 12
    batch.run()
    assert batch.endpoint.most_under_way == 20, "(4 + 12) x 1.25"


def test_a_batch_waits_for_holes_for_longer_than_for_an_endpoint_that_is_away(batch):
    batch.prompts(1)
    batch.endpoint.faults["p0"] = [503, 429, 503]
    assert batch.run(patience_s=0.0, waits_for_holes=True).done == 1
    batch.endpoint.faults["p1"] = ["drop"]
    batch.lines({"prompt": "p1"})
    with pytest.raises(BatchError, match="has not answered a request"):
        batch.run(patience_s=0.0, waits_for_holes=True)
