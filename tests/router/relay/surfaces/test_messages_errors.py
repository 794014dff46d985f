"""Errors in Anthropic's shape and words."""

import pytest

from slurminfer.core.background.fair_threads import FairThreads
from slurminfer.core.net.anthropic import error_body, stream_error_body
from slurminfer.router.relay.surfaces.messages.surface import Messages

NATIVE = "This model's maximum context length is 2048 tokens, but {} were requested"
VLLM = "This model's maximum context length is 8192 tokens. However, {}"
SGLANG = "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of {}"
TOO_MANY = "input length and `max_tokens` exceed context limit: {}; ask for fewer tokens"
TOO_LONG = "prompt is too long: {} maximum"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (405, "invalid_request_error"), (413, "request_too_large"),
        (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (503, "overloaded_error"),
    ],
)  # fmt: skip
def test_types_by_status(status, kind):
    answer = {"error": {"message": "no", "type": "whatever", "param": None, "code": None}}
    assert error_body(status, answer, "abc") == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "request_id": "abc",
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"message": "no"}},
        {"error": "no"},
        {"object": "error", "message": "no", "code": 400},
        {"detail": "no"},
    ],
)
def test_messages_of_every_engine(answer):
    assert Messages(FairThreads()).error(400, answer, "abc")["error"]["message"] == "no"


def test_a_field_that_is_called_otherwise_here_is_named_as_it_came():
    said = "response_format: not a field of /v1/messages; use output_config.format"
    answer = {"error": {"message": said, "code": "unknown_parameter"}}
    assert Messages(FairThreads()).error(400, answer, "abc")["error"]["message"] == said


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("response_format: at /properties/a/not: no", "output_config.format: at /properties/a/not: no"),
        (
            'tool_choice.function.name = "y": expected one of tools: x',
            'tool_choice.name = "y": expected one of tools: x',
        ),
        ("tools[3].function.parameters = 5: no", "tools[3].input_schema = 5: no"),
        ("stop[1] = 5: expected a string", "stop_sequences[1] = 5: expected a string"),
        ("the engine will stop here", "the engine will stop here"),
    ],
)
def test_fields_are_named_as_in_this_api(message, words):
    assert Messages(FairThreads()).error(400, {"error": {"message": message}}, "abc")["error"]["message"] == words


def test_an_error_that_has_the_shape_stays_as_it_is():
    error = {"type": "error", "error": {"type": "billing_error", "message": "pay"}}
    assert error_body(400, error, "abc") == {**error, "request_id": "abc"}
    assert error_body(400, {"x": 1}, "abc")["error"]["message"].endswith("{'x': 1}")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (NATIVE.format("100 prompt tokens + max_tokens 32000 = 32100 tokens"), TOO_MANY.format("100 + 32000 > 2048")),
        (NATIVE.format("3000 prompt tokens + max_tokens 9 = 3009 tokens"), TOO_LONG.format("3000 tokens > 2048")),
        (
            VLLM.format(
                "you requested 32000 output tokens and your prompt contains at least 12 input tokens, for a total"
            ),
            TOO_MANY.format("12 + 32000 > 8192"),
        ),
        (VLLM.format("your request has 9000 input tokens. Please reduce"), TOO_LONG.format("9000 tokens > 8192")),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum context length is 4096 "
            "tokens and your request has 2778 input tokens (8000 > 4096 - 2778).",
            TOO_MANY.format("2778 + 8000 > 4096"),
        ),
        (
            SGLANG.format("9000 tokens: 1000 tokens from the input messages and 8000 tokens for the completion."),
            TOO_MANY.format("1000 + 8000 > 4096"),
        ),
        (
            "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
            TOO_LONG.format("9000 tokens > 4096"),
        ),
        ("temperature: expected a number", "temperature: expected a number"),
    ],
)
def test_context_lengths_in_the_words_that_claude_code_knows(message, words):
    for answer in ({"error": {"message": message}}, {"object": "error", "message": message}):
        assert Messages(FairThreads()).error(400, answer, "abc")["error"]["message"] == words


def test_a_prompt_whose_tokens_are_not_counted_is_too_long_too():
    answer = {"error": {"message": "the prompt has 9 bytes or more", "code": "context_length_exceeded"}}
    words = Messages(FairThreads()).error(400, answer, "abc")["error"]["message"]
    assert words.startswith("prompt is too long: the prompt has")


@pytest.mark.parametrize("kind", [["a"], {"a": 1}, 5, None, "whatever"])
def test_an_error_event_of_any_type(kind):
    found = stream_error_body({"error": {"message": "no", "type": kind}}, "abc")
    assert found["error"] == {"type": "api_error", "message": "no"}
