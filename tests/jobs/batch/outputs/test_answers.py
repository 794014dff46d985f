"""From an engine's replies to records."""

import json
from typing import Any

import msgspec
import pytest

from slurminfer.jobs.batch.ledger.record import Record, decode, encode
from slurminfer.jobs.batch.outputs.answers import MalformedAnswerError, NoTextError, content_of, make_record

from .conftest import reply, request


def answer_of(record: Record) -> dict[str, Any]:
    assert record.answer is not None
    return json.loads(bytes(record.answer))


def kept(*replies: bytes, samples: int = 1, **asked: Any) -> dict[str, Any]:
    """The answer that the ledger keeps."""
    record = make_record(request(**asked), replies, "req-1", samples=samples)
    assert b"\n" not in msgspec.json.encode(record), "a record is a line"
    return answer_of(record)


USAGE = {"prompt_tokens": 7, "cached_tokens": 3, "completion_tokens": 5}


def test_a_text_its_end_and_its_tokens():
    record = make_record(request(3, 4), [reply('a\u2028\n"b')])
    assert answer_of(record) == {"text": 'a\u2028\n"b', "finish_reason": "stop", "usage": USAGE}
    assert (record.index, record.key, record.error, record.status) == (4, f"{3:016x}{4:016x}", None, None)
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (7, 3, 5)


@pytest.mark.parametrize("prefix", ["completion", "output"])
def test_tokens_of_reasoning_are_counted_over_all_turns(prefix):
    usage = {f"{prefix}_tokens": 5, f"{prefix}_tokens_details": {"reasoning_tokens": 4}}
    body = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": usage}).encode()
    assert make_record(request(), [body]).reasoning_tokens == 4
    assert decode(encode(make_record(request(), [body, body]))).reasoning_tokens == 8
    assert make_record(request(), [reply("a")]).reasoning_tokens == 0


def test_completions():
    body = b'{"choices": [{"text": "", "finish_reason": "length", "logprobs": {"tokens": []}}]}'
    answer = kept(body, path="/v1/completions")
    assert answer == {"text": "", "finish_reason": "length", "usage": None, "logprobs": {"tokens": []}}


@pytest.mark.parametrize(
    "details", [None, {}, {"cached_tokens": None}, {"cached_tokens": 0, "audio_tokens": 1}], ids=str
)
def test_usage_without_cached_tokens(details):
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "prompt_tokens_details": details}
    answer = kept(json.dumps({"choices": [{"text": "a"}], "usage": usage}).encode())
    assert answer["usage"] == {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 1}


@pytest.mark.parametrize(
    ("path", "usage"),
    [
        ("/v1/responses", {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 5}),
        (
            "/v1/messages",
            {
                "input_tokens": 3,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 1,
                "output_tokens": 5,
            },
        ),
    ],
)
def test_usage_as_other_apis_say_it(path, usage):
    record = make_record(request(path=path), [json.dumps({"id": "a", "usage": usage}).encode()])
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (7, 3, 5)


@pytest.mark.parametrize("said", [{"tool_calls": [{"id": "1"}]}, {"refusal": "no"}, {"function_call": {"name": "f"}}])
def test_tool_calls_and_refusals_are_answers(said):
    answer = kept(reply(None, **said, reasoning_content="hm", audio=None))
    assert answer == {"text": None, "finish_reason": "stop", "usage": USAGE, **said, "reasoning_content": "hm"}


def test_samples_are_lists_in_their_order():
    body = json.loads(reply("a", "b", "c"))
    body["choices"].reverse()
    body["choices"][0]["message"]["refusal"] = "no c"
    answer = kept(json.dumps(body).encode(), samples=3)
    assert (answer["text"], answer["finish_reason"]) == (["a", "b", "c"], ["stop"] * 3)
    assert answer["refusal"] == [None, None, "no c"]
    assert kept(reply("a", "b"), body={"n": 2})["text"] == ["a", "b"]


def test_fewer_samples_than_asked_for_are_no_answer():
    with pytest.raises(MalformedAnswerError, match="1 choices where 2 were asked for"):
        kept(reply("a"), samples=2)
    with pytest.raises(MalformedAnswerError, match="2 choices where 3"):
        kept(reply("a", "b"), body={"n": 3})


def test_turns_are_lists_and_their_tokens_are_added():
    record = make_record(request(turns=("more",)), [reply("a"), reply("b", usage=(20, 10, 1))])
    answer = answer_of(record)
    assert (answer["text"], answer["finish_reason"]) == (["a", "b"], ["stop", "stop"])
    assert answer["usage"] == {"prompt_tokens": 27, "cached_tokens": 13, "completion_tokens": 6}
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (27, 13, 6)
    assert kept(reply("a", usage=None), reply("b", usage=None))["usage"] is None
    assert content_of(reply("a")) == "a"
    with pytest.raises(NoTextError, match="no text that a turn could follow"):
        content_of(reply(None, tool_calls=[{}]))


def test_whole_answers_are_kept_as_one_line():
    body = json.dumps(json.loads(reply("a", mine={"x": [1.5, 1 << 70, None, "é\n"]})), indent=2).encode()
    answer = kept(body, whole_answer=True)
    assert answer == {"response": {"status_code": 200, "request_id": "req-1", "body": json.loads(body)}}
    record = make_record(request(whole_answer=True), [body], None)
    assert answer_of(record)["response"]["request_id"] == "c-1"
    assert record.completion_tokens == 5


def test_whole_answers_of_other_paths_need_no_choices():
    body = b'{"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}'
    assert kept(body, whole_answer=True, path="/v1/embeddings")["response"]["body"] == json.loads(body)


MALFORMED = [
    b'{"error": {"message": "out of memory"}}',
    b'{"choices": []}',
    b'{"choices": [{}]}',
    b'{"choices": [{"message": "a"}]}',
    b'{"choices": [{"text": 1}]}',
    b'{"choices": {}}',
    b"[]",
    b'{"choices": [{"text": "a"}], "usage": {"completion_tokens": -5}}',
    b"<html>",
    b"",
    b'{"choices": [{"text": "\xff"}]}',
    b'{"choices": [{"text": "\\ud800"}]}',
    b'{"choices": [{"text": "a"}], "usage": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    b'{"choices": [{"message": {"content": "a", "tool_calls": [' + b"[" * 800 + b"]" * 800 + b"]}}]}",
]


@pytest.mark.parametrize("whole_answer", [False, True])
@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_answer(body, whole_answer):
    with pytest.raises(MalformedAnswerError):
        make_record(request(whole_answer=whole_answer), [body])


@pytest.mark.parametrize("rest", [b'"a": "\xff"', b'"a": ' + b"9" * 5000, b'"a": ' + b"[" * 700 + b"]" * 700])
def test_what_is_kept_whole_can_be_read_by_everybody(rest):
    with pytest.raises(MalformedAnswerError, match="cannot be written"):
        make_record(request(whole_answer=True), [b'{"choices": [{"text": "a"}], %b}' % rest])


@pytest.mark.parametrize("whole_answer", [False, True])
def test_what_is_written_can_be_read_from_within_other_calls(whole_answer):
    for depth in range(0, 1100, 7):
        body = b'{"choices": [{"message": {"content": "a", "tool_calls": [%b%b]}}]}' % (b"[" * depth, b"]" * depth)
        try:
            record = make_record(request(whole_answer=whole_answer), [body])
        except MalformedAnswerError:
            assert depth > 300
            continue
        line = msgspec.json.encode({"around": {"it": record}})

        def nested(frames: int, line: bytes = line):
            return nested(frames - 1) if frames else msgspec.json.decode(line)

        nested(200)


@pytest.mark.parametrize("whole_answer", [False, True])
def test_an_answer_without_text_is_none(whole_answer):
    said = {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
    with pytest.raises(NoTextError, match=r"the answer has no text \(finish_reason length\)"):
        make_record(request(whole_answer=whole_answer), [json.dumps({"choices": [said]}).encode()])
