"""Whatever stands in the input, in an answer or in the output's place: one row's error, or one clear error."""

import json
import os

import pytest
from aiohttp import web

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.driver.http import reply

CHAT = {"custom_id": "c", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "c"}]}}


def answer(body: object) -> web.Response:
    """An HTTP 200 with that body, as JSON where it is not bytes."""
    return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode())


def error_of(row: dict) -> str:
    """Why a row of the output has no answer, in either form."""
    error = row["error"]
    return error["message"] if isinstance(error, dict) else error


def test_a_file_of_windows(batch):
    batch.input.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "id": "x1"}\r\n\r\n{"prompt": "b", "id": "x3"}')
    assert batch.run().answered == 2
    assert batch.ids() == ["x1", "x3"]


def test_rows_of_any_bytes_get_an_error_each(batch):
    bad = [
        b'{"prompt": "\xff"}',
        b'{"prompt": "\x00"}',
        b'{"prompt": ' + b"[" * 2000 + b"]" * 900,
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"custom_id": "up", "url": "/v1/../workers", "body": {}}',
        b'{"custom_id": "odd", "url": "/v1/a b\\r\\nx: y", "body": {}}',
    ]
    batch.lines({"id": "first", "prompt": "a"}, *bad, {"id": "last", "prompt": "z", "seed": 1 << 70})
    summary = batch.run()
    assert (summary.total, summary.answered, summary.failed) == (9, 2, 7)
    rows = batch.results()
    assert [row["error"] is None for row in rows] == [True, *[False] * 7, True]
    assert (rows[0]["id"], rows[-1]["id"]) == ("first", "last")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "out of memory"}},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": "a"}]},
        {"choices": [{"text": 1}]},
        {"choices": {}},
        [],
        {"choices": [{"text": "a"}], "usage": {"completion_tokens": -5}},
        b"<html>",
        b"",
        b'{"choices": [{"text": "\xff"}]}',
        b'{"choices": [{"text": "\\ud800"}]}',
        b'{"choices": [{"text": "a"}], "usage": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    ],
)
@pytest.mark.parametrize("line", [{"id": "c", "prompt": "c"}, CHAT])
def test_answers_that_are_none_are_asked_for_again_and_then_given_up(batch, line, body):
    batch.lines(line, {"id": "other", "prompt": "other"})
    batch.endpoint.faults["c"] = [answer(body) for _ in range(9)]
    summary = batch.run()
    assert (summary.answered, summary.failed) == (1, 1)
    assert len(batch.endpoint.faults["c"]) == 6
    assert error_of(batch.results()[0]).startswith("failed 3 times: ")


@pytest.mark.parametrize("line", [{"id": "c", "messages": [{"role": "user", "content": "c"}]}, CHAT])
def test_an_answer_without_text_is_an_error_at_once(batch, line):
    batch.lines(line)
    said = {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
    batch.endpoint.faults["c"] = [answer({"choices": [said]})]
    assert batch.run().failed == 1
    assert error_of(batch.results()[0]) == "the answer has no text (finish_reason length)"


@pytest.mark.parametrize("said", [{"tool_calls": [{"id": "1"}]}, {"refusal": "no"}])
def test_tool_calls_and_refusals_are_answers(batch, said):
    batch.lines({"id": "c", "messages": [{"role": "user", "content": "c"}]}, CHAT | {"custom_id": "w"})
    body = {"choices": [{"message": {"content": None, **said}}]}
    batch.endpoint.faults["c"] = [answer(body), answer(body)]
    assert batch.run().answered == 2
    plain, whole = batch.results()
    assert plain["generated_text"] is None and plain["error"] is None
    assert {name: plain[name] for name in said} == said
    assert whole["response"]["body"] == body


def test_an_answer_as_deep_as_can_be_written_can_be_read_by_the_next_run(batch):
    depths = range(300, 1010, 10)
    batch.lines(
        *({"custom_id": f"c{depth}", "url": "/v1/completions", "body": {"prompt": str(depth)}} for depth in depths)
    )
    for depth in depths:
        body = b'{"choices": [{"text": "a"}], "x": ' + b"[" * depth + b"]" * depth + b"}"
        batch.endpoint.faults[str(depth)] = [answer(body) for _ in range(3)]
    first = batch.run()
    assert first.answered > 5 and first.failed > 5

    def nested(frames: int):
        return nested(frames - 1) if frames else batch.run()

    assert nested(100).skipped == first.answered


def test_a_huge_answer_is_an_error_and_is_not_kept_in_memory(batch, monkeypatch):
    monkeypatch.setattr(reply, "LONGEST_ANSWER", 1 << 20)
    batch.prompts(2)
    batch.endpoint.faults["p0"] = [answer(b" " * ((1 << 20) + 1))]
    assert batch.run().failed == 1
    assert batch.errors() == {"p0": "the answer is longer than 1 MiB"}


def test_errors_of_any_bytes(batch):
    batch.prompts(3)
    bodies = (b"\xff\xfe", b"[" * 5000, json.dumps({"error": {"message": "x" * 9000, "code": {}}}).encode())
    for index, body in enumerate(bodies):
        batch.endpoint.faults[f"p{index}"] = [web.Response(body=body, status=400)]
    assert batch.run().failed == 3
    assert all(0 < len(error) <= 2000 for error in batch.errors().values())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_inputs_that_are_no_files(batch, make):
    make(batch.input)
    with pytest.raises(BatchError, match=r"in\.jsonl"):
        batch.run()
    assert not batch.endpoint.bodies


def test_a_pipe_as_output_is_refused_before_anything_is_sent(batch):
    batch.prompts(1)
    os.mkfifo(batch.output)
    with pytest.raises(BatchError, match=r"out\.jsonl"):
        batch.run()
    assert not batch.endpoint.bodies
