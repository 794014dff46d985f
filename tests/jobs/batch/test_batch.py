"""A whole batch against a real HTTP server."""

import threading
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.driver import endpoint as batch_endpoint
from slurminfer.jobs.batch.driver.address import Address
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.http.reply import UnreachableError
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters
from slurminfer.jobs.batch.report.tally import BatchState

from ...support.waiting import eventually


def parameters(**changed: Any) -> Parameters:
    """With further ones as defaults of the sampling."""
    known = {name: changed.pop(name) for name in list(changed) if name in Parameters.__struct_fields__}
    sampling = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changed.items()}
    return Parameters(**known, sampling=sampling)


def test_prompts_and_messages_get_texts(batch):
    batch.lines(
        {"id": "a", "prompt": "one", "max_tokens": 3, "guided_json": {"x": 1}},
        {"id": "b", "messages": [{"role": "user", "content": "two"}]},
    )
    summary = batch.run()
    assert (summary.total, summary.answered, summary.failed) == (2, 2, 0)
    assert (summary.prompt_tokens, summary.completion_tokens) == (2, 10)
    assert summary.output == batch.output and summary.others == 0
    first, second = batch.results()
    assert first["prompt"] == "one" and first["generated_text"] == "echo one"
    assert second["messages"] == [{"role": "user", "content": "two"}] and second["generated_text"] == "echo two"
    for row in (first, second):
        assert row["finish_reason"] == "stop" and row["error"] is None
        assert (row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"]) == (1, 5)
    sent = dict(batch.endpoint.bodies)
    assert sent["/v1/completions"] == {"model": "stub", "prompt": "one", "max_tokens": 3, "guided_json": {"x": 1}}
    assert "/v1/chat/completions" in sent
    assert batch.endpoint.priorities == {"batch"}


def test_the_output_has_the_order_of_the_input(batch):
    batch.lines(*({"id": index, "prompt": f"{index * 7 % 50} x"} for index in range(300)))
    batch.run(concurrency=7)
    assert batch.ids() == list(range(300))
    assert batch.answers() == [f"echo {index * 7 % 50} x" for index in range(300)]


def test_openai_batch_lines_get_openai_batch_results(batch):
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}]}
    batch.lines({"custom_id": "c1", "method": "POST", "url": "/v1/chat/completions", "body": body})
    assert batch.run().answered == 1
    (result,) = batch.results()
    assert result.pop("id").startswith("batch_req_")
    answer = result["response"].pop("body")
    assert answer["choices"][0]["message"]["content"] == "echo hi"
    assert result == {"custom_id": "c1", "response": {"status_code": 200, "request_id": "req-hi"}, "error": None}
    assert batch.endpoint.bodies == [("/v1/chat/completions", body)]
    assert batch.run().skipped == 1


def test_defaults_count_only_where_the_row_does_not_say(batch):
    batch.lines(
        {"prompt": "a"},
        {"prompt": "b", "max_tokens": 1, "temperature": 1.0},
        {"prompt": "c", "max_completion_tokens": 2},
    )
    batch.run(parameters=parameters(max_tokens=9, temperature=0.0))
    sent = {body.pop("prompt"): body for _, body in batch.endpoint.bodies}
    assert sent["a"] == {"model": "stub", "max_tokens": 9, "temperature": 0.0}
    assert sent["b"] == {"model": "stub", "max_tokens": 1, "temperature": 1.0}
    assert sent["c"] == {"model": "stub", "max_completion_tokens": 2, "temperature": 0.0}


def test_rows_with_the_same_id_are_rows_of_their_own(batch):
    batch.lines({"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}, {"id": "a", "prompt": "x"})
    assert batch.run().answered == 3
    assert batch.answers() == ["echo x", "echo y", "echo x"]


def test_bad_rows_have_their_errors_and_do_not_stop_the_rest(batch):
    batch.lines({"id": "a", "prompt": "a"}, b'{"id": "torn', {"id": "b"}, b"", b"[1]", {"id": "z", "prompt": "z"})
    summary = batch.run()
    assert (summary.total, summary.answered, summary.failed) == (5, 2, 3)
    rows = batch.results()
    assert len(rows) == 5, "blank lines are no rows"
    assert [row["error"] is None for row in rows] == [True, False, False, False, True]
    assert rows[1]["error"].startswith("line 2 of ") and rows[3]["error"].startswith("line 5 of ")
    assert "prompt" in rows[2]["error"]


def test_a_row_that_the_endpoint_refuses_is_that_rows_error(batch):
    batch.prompts(3)
    batch.endpoint.faults["p1"] = [400]
    summary = batch.run()
    assert (summary.answered, summary.failed) == (2, 1)
    assert batch.errors() == {"p1": "stub says 400"}
    assert batch.run().failed == 0, "tried again by the next run"
    assert batch.ids() == ["p0", "p1", "p2"]


@pytest.mark.parametrize("fault", [408, 425, 429, 500, 502, 503, "cut", "drop", "mush"])
def test_what_may_pass_is_tried_again(batch, fault):
    batch.prompts(3)
    batch.endpoint.faults["p1"] = [fault] * 2
    assert batch.run().answered == 3
    assert batch.ids() == ["p0", "p1", "p2"]
    assert len(batch.endpoint.bodies) == 5


def test_a_row_that_makes_the_endpoint_fail_every_time_is_given_up(batch):
    batch.prompts(2)
    batch.endpoint.faults["p0"] = [500] * 100
    assert batch.run().failed == 1
    assert batch.errors() == {"p0": "failed 3 times: HTTP 500: stub says 500"}


def test_a_row_under_which_the_connection_always_breaks_is_set_aside(batch):
    batch.prompts(3)
    batch.endpoint.faults["p0"] = ["drop"] * 100
    assert batch.run().failed == 1
    assert batch.errors()["p0"].startswith("failed 8 times: its connection ended before its answer was complete")


def test_a_gateway_that_fails_longer_is_waited_out(batch):
    batch.prompts(1)
    batch.endpoint.faults["p0"] = [502] * 7
    assert batch.run().answered == 1


def test_a_row_under_which_workers_were_lost_is_not_sent_again(batch):
    batch.prompts(2)
    lost = {"error": {"message": "2 workers were lost under this request", "code": "worker_lost"}}
    batch.endpoint.faults["p0"] = [web.json_response(lost, status=502)]
    assert batch.run().failed == 1
    assert len(batch.endpoint.bodies) == 2
    assert batch.errors() == {"p0": "2 workers were lost under this request"}


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
    assert summary.answered == 20
    assert batch.ids() == [f"p{index}" for index in range(20)]


def test_an_endpoint_that_moved_is_found_again(batch):
    batch.prompts(2)
    summary = batch.run(endpoint=Address("http://127.0.0.1:9/v1"), locate=lambda: Address(batch.endpoint.url))
    assert summary.answered == 2


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
    assert summary.answered == 40
    assert successor.answered and batch.endpoint.answered
    assert not batch.endpoint.answered.keys() & successor.answered.keys()


def test_an_endpoint_that_stays_away_ends_the_batch_and_says_what_to_do(batch):
    batch.prompts(2)
    batch.endpoint.faults = {"p1": [503] * 1000}
    with pytest.raises(BatchError, match=r"not answered a request .*stub says 503.*start the same command again"):
        batch.run(patience_s=0.3)
    batch.endpoint.faults = {}
    assert batch.run().skipped == 1


def test_wrong_key_stops_at_once(batch):
    batch.prompts(100)
    with pytest.raises(BatchError, match="refuses the API key: wrong API key"):
        batch.run(key="wrong", parameters=Parameters(model="stub"))
    assert not batch.endpoint.bodies and not batch.output.exists()


def test_several_models_ask_for_a_choice(batch):
    batch.prompts(1)
    batch.endpoint.models = ["a", "b"]
    with pytest.raises(BatchError, match="serves a, b; say which model"):
        batch.run()
    batch.run(output=OutputOptions(path=batch.folder / "other.jsonl"), parameters=Parameters(model="b"))
    assert batch.endpoint.bodies[0][1]["model"] == "b"


@pytest.mark.parametrize("rows", [[], [{"neither": "prompt nor messages"}] * 3])
def test_where_nothing_is_to_be_sent_nothing_is_asked(batch, monkeypatch, rows):
    asked: list[str] = []

    async def get(self, path):
        asked.append(path)
        raise UnreachableError("no")

    monkeypatch.setattr(batch_endpoint.Endpoint, "get", get)
    batch.lines(*rows)
    assert batch.run().failed == len(rows)
    assert asked == []


def test_rows_that_name_their_model_need_no_choice(batch):
    batch.lines({"prompt": "a", "model": "a"}, {"prompt": "b", "model": "b"})
    batch.endpoint.models = ["a", "b"]
    assert batch.run().answered == 2
    assert {body["model"] for _, body in batch.endpoint.bodies} == {"a", "b"}


def test_what_is_done_asks_the_endpoint_nothing(batch):
    batch.prompts(3)
    batch.run()
    batch.endpoint.stop()
    summary = batch.run(patience_s=0.0)
    batch.endpoint.start()
    assert (summary.answered, summary.skipped) == (3, 3)


def test_concurrency_fits_the_ready_workers(batch):
    batch.prompts(120)
    ready = {"state": "ready", "healthy": True, "capacity": 16}
    gone = {"state": "gone", "healthy": False, "capacity": 500}
    batch.endpoint.workers, batch.endpoint.delay_s = [ready, ready, gone], 0.1
    batch.run()
    assert batch.endpoint.most_under_way == 40, "32 x 1.25"


def test_a_batch_asks_for_as_much_as_workers_in_holes_of_the_schedule_could_compute(batch):
    batch.prompts(120)
    batch.endpoint.workers, batch.endpoint.delay_s = [{"state": "ready", "healthy": True, "capacity": 16}], 0.1
    batch.endpoint.may_be_added = 16
    batch.run()
    assert batch.endpoint.most_under_way == 40, "(16 + 16) x 1.25"


def test_concurrency_is_what_was_asked_for(batch):
    batch.prompts(20)
    batch.endpoint.workers, batch.endpoint.delay_s = [{"state": "ready", "healthy": True, "capacity": 50}], 0.03
    batch.run(concurrency=3)
    assert batch.endpoint.most_under_way == 3


def test_a_batch_waits_for_holes_for_longer_than_for_an_endpoint_that_is_away(batch):
    batch.lines({"prompt": "p0"})
    batch.endpoint.faults["p0"] = [503, 429, 503]
    assert batch.run(patience_s=0.0, waits_for_holes=True).answered == 1
    batch.endpoint.faults["p1"] = ["drop"] * 8  # a single one may be a connection that was kept alive too long
    batch.lines({"prompt": "p1"})
    with pytest.raises(BatchError, match="has not answered a request"):
        batch.run(patience_s=0.0, waits_for_holes=True)


def test_conversations_go_on_turn_by_turn(batch):
    batch.lines(*({"id": index, "messages": [{"role": "user", "content": f"q{index}"}]} for index in range(3)))
    batch.endpoint.faults["and then?"] = [500, 503, "drop"]
    summary = batch.run(parameters=Parameters(turns=("and then?", "why?")), concurrency=1)
    assert summary.answered == 3 and summary.completion_tokens == 45 and summary.prompt_tokens == 9
    for index, row in enumerate(batch.results()):
        assert row["generated_text"] == [f"echo q{index}", "echo and then?", "echo why?"]
        assert row["finish_reason"] == ["stop"] * 3
        assert row["usage"]["completion_tokens"] == 15
    (longest,) = [body for _, body in batch.endpoint.bodies if body["messages"][0]["content"] == "q1"][2:]
    assert [message["content"] for message in longest["messages"]] == [
        "q1", "echo q1", "and then?", "echo and then?", "why?",
    ]  # fmt: skip


def test_several_samples_are_one_request(batch):
    batch.lines({"id": "a", "prompt": "a"})
    summary = batch.run(parameters=Parameters(samples=3))
    assert len(batch.endpoint.bodies) == 1 and batch.endpoint.bodies[0][1]["n"] == 3
    assert batch.answers() == [["echo a 0", "echo a 1", "echo a 2"]]
    assert summary.completion_tokens == 15


def test_an_engine_that_cannot_sample_several_times_is_told_apart(batch):
    batch.lines({"id": "a", "prompt": "a"})
    refusal = {"error": {"message": "n must be 1", "type": "invalid_request_error"}}
    batch.endpoint.faults["a"] = [web.json_response(refusal, status=400)]
    assert batch.run(parameters=Parameters(samples=3)).failed == 1
    assert batch.errors() == {"a": "the endpoint refuses n = 3 (samples): n must be 1"}


def test_a_row_of_many_megabytes_passes_whole(batch):
    text = "0123456789abcdef" * (6 << 16)
    batch.lines({"id": "small", "prompt": "a"}, {"id": "large", "prompt": text}, {"id": "last", "prompt": "z"})
    assert batch.run().answered == 3
    assert batch.ids() == ["small", "large", "last"]
    assert any(body["prompt"] == text for _, body in batch.endpoint.bodies)


def test_the_first_rows_and_then_the_rest(batch):
    batch.prompts(150)
    summary = batch.run(limit=7)
    assert (summary.total, summary.answered) == (7, 7)
    assert batch.ids() == [f"p{index}" for index in range(7)]
    assert batch.run(limit=7).skipped == 7
    summary = batch.run()
    assert (summary.total, summary.answered, summary.skipped) == (150, 150, 7)
    assert batch.ids() == [f"p{index}" for index in range(150)]
    assert batch.endpoint.answered.total() == 150, "none twice"


def test_a_sample_and_then_the_rest(batch):
    batch.prompts(300)
    assert batch.run(sample=20).answered == 20
    drawn = batch.ids()
    assert len(drawn) == 20 and drawn == sorted(drawn, key=lambda id: int(id[1:]))
    assert batch.run(sample=20).skipped == 20
    assert batch.run().skipped == 20
    assert batch.endpoint.answered.total() == 300


def test_progress_tells_the_whole_story(batch):
    batch.prompts(5)
    batch.endpoint.faults["p3"] = [400]
    seen: list[BatchState] = []
    run_batch(batch.options(), seen.append)
    first, last = seen[0], seen[-1]
    assert (first.total, first.answered, first.failed) == (5, 0, 0)
    assert (last.total, last.answered, last.failed, last.completion_tokens) == (5, 4, 1, 20)
    assert last.in_flight == 0 and last.elapsed_s > 0


def test_missing_input_and_output_onto_the_input_are_refused(batch):
    with pytest.raises(BatchError):
        batch.run()
    batch.prompts(1)
    before = batch.input.read_bytes()
    with pytest.raises(BatchError, match=r"is the input|is one of the inputs"):
        batch.run(output=OutputOptions(path=batch.input))
    assert batch.input.read_bytes() == before


def test_empty_input_makes_an_empty_output(batch):
    batch.lines()
    assert batch.run().total == 0
    assert batch.output.read_bytes() == b""
