"""Every field that could change an answer is obeyed or refused by its name."""

import json
from typing import Any

import pytest

from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.fields import CHAT, COMPLETIONS, HARMLESS, NOTHING, OBEYED, REFUSED
from slurminfer.nodes.native.api.requests.generation import GenerationRequest
from slurminfer.nodes.native.api.requests.protocol import parse

BODIES: dict[type[GenerationRequest], dict[str, Any]] = {
    ChatRequest: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    CompletionRequest: {"model": "m", "prompt": "hi"},
}
KINDS = list(BODIES)


def _parse(kind: type[GenerationRequest], **fields: Any) -> GenerationRequest:
    return parse(kind, json.dumps({**BODIES[kind], **fields}).encode())


def _refused(kind: type[GenerationRequest], **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as refused:
        _parse(kind, **fields)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_table_says_is_obeyed_is_what_requests_have(kind):
    obeyed = {name for name, rule in OBEYED.items() if rule.endpoint in (None, kind.endpoint)}
    assert obeyed == set(kind.__struct_fields__)


def test_no_field_is_in_two_tables():
    names = [*OBEYED, *REFUSED, *HARMLESS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_is_not_implemented_is_refused_by_name_unless_it_asks_for_nothing(kind, name):
    error = _refused(kind, **{name: {"some": "thing"}})
    assert error.param == name
    assert error.message.startswith(f'{name} = {{"some":"thing"}}: not supported by this engine')
    for value in REFUSED[name].nothing:
        _parse(kind, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop_regex", "[c]"), ("typical_p", 0.5), ("grammar", "root ::= x"),
        ("logits_processors", ["x"]), ("enable_thinking", False), ("enable_thinking", True),
        ("functions", [{"name": "f"}]), ("repeat_penalty", 1.1), ("do_sample", False),
        ("suffix", "x"), ("function_call", {"name": "f"}),
        ("extra_body", {"top_k": 5}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_ask_for_something_are_refused(kind, name, value):
    assert _refused(kind, **{name: value}).param == name


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_cannot_change_the_answer_is_ignored(kind):
    _parse(kind, **{name: {"any": "value"} for name in HARMLESS})


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_the_other_endpoint_is_refused(kind):
    other = {CHAT: COMPLETIONS, COMPLETIONS: CHAT}[kind.endpoint]
    names = [name for name, rule in OBEYED.items() if rule.endpoint == other]
    assert names
    for name in names:
        error = _refused(kind, **{name: "x"})
        assert (error.param, other in error.message) == (name, True)
        for value in NOTHING:
            _parse(kind, **{name: value})
