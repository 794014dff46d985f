"""Requests of every kind whose answers must survive the loss of a worker."""

from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-zäöü ]{20,60}$"},
        "kind": {"enum": ["ü", "plain", {"a": None}]},
        "places": {"type": "array", "items": {"enum": ["here", "there", 12]}, "minItems": 8, "maxItems": 12},
    },
    "required": ["name", "kind", "places"],
    "additionalProperties": False,
}
_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Za-z]{8,20}$"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
_NAMES = ("weather", "tide")
_TOOLS = [{"type": "function", "function": {"name": name, "parameters": _PARAMETERS}} for name in _NAMES]
_FLAT_TOOLS = [{"type": "function", "name": name, "parameters": _PARAMETERS, "strict": True} for name in _NAMES]
_ANTHROPIC_TOOLS = [{"name": name, "description": "d", "input_schema": _PARAMETERS} for name in _NAMES]
# One call after the other as the model may write them by itself, with words before; thinking before that.
_CALL = r'<tool_call>\n?\{"name": "weather", "arguments": \{"city": "[a-z]{6,9}", "unit": "C"\}\}\n?</tool_call>'
_THOUGHT = r"<think>[a-z ]{30,60}</think>\n\n"


@dataclass(frozen=True, slots=True)
class Question:
    """`api`: how its answer is read. `may_break`: it cannot go on once text has come, and must say so."""

    api: str
    path: str
    fields: Fields
    may_break: bool = False


def questions(model: str, tokens: int) -> dict[str, Question]:
    """All kinds. Greedy, or with a seed."""
    said = [{"role": "user", "content": "What is the weather in Paris, and what is the tide in Brest? Be long."}]
    usage = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    chat: Fields = {"model": model, "messages": said, "max_tokens": tokens, **usage}
    plain = {"chat_template_kwargs": {"tag": "<think></think>"}}
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA, "strict": True}}
    text: Fields = {"model": model, "prompt": "Once upon a time there was", "max_tokens": tokens}
    claude: Fields = {"model": model, "messages": said, "max_tokens": tokens, "temperature": 0, "stream": True}
    response: Fields = {"model": model, "input": said, "max_output_tokens": tokens, "temperature": 0, "stream": True}
    parsed = {"text": {"format": {"type": "json_schema", "name": "place", "schema": _SCHEMA, "strict": True}}}
    kinds: dict[str, tuple[str, str, Fields]] = {
        "chat": ("chat", "chat/completions", chat),
        "chat, sampled": ("chat", "chat/completions", {**chat, "temperature": 0.4, "seed": 11}),
        "chat, stop strings": ("chat", "chat/completions", {**chat, "stop": ["\n\n", "tide in B", "zz"]}),
        "chat, schema": ("chat", "chat/completions", {**chat, "response_format": schema}),
        "chat, forced calls": ("chat", "chat/completions", {**chat, "tools": _TOOLS, "tool_choice": "required"}),
        "chat, one forced call": ("chat", "chat/completions", {
            **chat, "tools": _TOOLS, "tool_choice": "required", "parallel_tool_calls": False}),
        "chat, named call": ("chat", "chat/completions", {
            **chat, "tools": _TOOLS, "tool_choice": {"type": "function", "function": {"name": "tide"}}}),
        "chat, tools": ("chat", "chat/completions", {
            **chat, **plain, "tools": _TOOLS, "regex": f"[A-Z]{{4}} {_CALL}\n{_CALL}"}),
        "chat, thinking": ("chat", "chat/completions", {**chat, **plain, "regex": f"{_THOUGHT}[A-Z ]{{20,40}}"}),
        "chat, thinking and calls": ("chat", "chat/completions", {
            **chat, **plain, "max_tokens": 2 * tokens, "tools": _TOOLS, "regex": f"{_THOUGHT}[A-Z]{{4}} {_CALL}"}),
        "chat, log-probabilities": ("chat", "chat/completions", {**chat, "logprobs": True, "top_logprobs": 3}),
        "completion": ("completion", "completions", {**text, **usage}),
        "completion, log-probabilities": ("completion", "completions", {**text, **usage, "logprobs": 2}),
        "completion, echo": ("completion", "completions", {**text, **usage, "logprobs": 1, "echo": True}),
        "completion, regular expression": ("completion", "completions", {
            **text, **usage, "regex": "([a-c]{2,4}-){9}🎉"}),
        "messages": ("messages", "messages", claude),
        "messages, tools": ("messages", "messages", {
            **claude, "tools": _ANTHROPIC_TOOLS, "tool_choice": {"type": "any"}}),
        "messages, thinking and calls": ("messages", "messages", {
            **claude, **plain, "max_tokens": 2 * tokens, "tools": _ANTHROPIC_TOOLS,
            "regex": f"{_THOUGHT}[A-Z]{{4}} {_CALL}"}),
        "messages, whole": ("json", "messages", {**claude, "stream": False}),
        "responses": ("responses", "responses", response),
        "responses, schema": ("responses", "responses", {**response, **parsed}),
        "responses, tools": ("responses", "responses", {**response, "tools": _FLAT_TOOLS, "tool_choice": "required"}),
        "responses, thinking and calls": ("responses", "responses", {
            **response, **plain, "max_output_tokens": 2 * tokens, "tools": _FLAT_TOOLS,
            "regex": f"{_THOUGHT}[A-Z]{{4}} {_CALL}"}),
        "responses, whole": ("json", "responses", {**response, "stream": False}),
        "chat, whole with schema": ("json", "chat/completions", {
            **chat, "response_format": schema, "stream": False, "stream_options": None}),
        "chat, whole of two": ("json", "chat/completions", {
            **chat, "n": 2, "temperature": 0.4, "seed": 5, "stream": False, "stream_options": None}),
        "count of tokens": ("json", "messages/count_tokens", {"model": model, "messages": said}),
        "count of input": ("json", "responses/input_tokens", {"model": model, "input": said}),
        "tokens of a text": ("json", "tokenize", {"model": model, "prompt": "Once upon a time " * 200}),
    }  # fmt: skip
    found = {name: Question(api, f"/v1/{path}", fields) for name, (api, path, fields) in kinds.items()}
    two = Question("chat", "/v1/chat/completions", {**chat, "n": 2, "temperature": 0.4, "seed": 5}, may_break=True)
    return {**found, "chat, two choices": two}
