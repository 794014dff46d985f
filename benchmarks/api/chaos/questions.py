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
_SAMPLED: Fields = {"temperature": 1, "seed": 5}
_SHORT = ("messages/count_tokens", "responses/input_tokens", "tokenize", "embeddings")
_NAMES = ("weather", "tide")
_TOOLS = [{"type": "function", "function": {"name": name, "parameters": _PARAMETERS}} for name in _NAMES]
_FLAT_TOOLS = [{"type": "function", "name": name, "parameters": _PARAMETERS, "strict": True} for name in _NAMES]
_ANTHROPIC_TOOLS = [{"name": name, "description": "d", "input_schema": _PARAMETERS} for name in _NAMES]
# One call after the other as the model may write them by itself, with words before; thinking before that.
_CALL = r'<tool_call>\n?\{"name": "weather", "arguments": \{"city": "[a-z]{6,9}", "unit": "C"\}\}\n?</tool_call>'
_THOUGHT = r"<think>[a-z ]{30,60}</think>\n\n"


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of request.

    Attributes:
        api: how its answer is read.
        is_short: it is answered so soon that it is asked again and again until a worker is lost.
    """

    api: str
    path: str
    fields: Fields
    is_short: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether its answer comes in events."""
        return self.api != "json"


def questions(model: str, tokens: int, chat_says: str = "") -> dict[str, Question]:
    """All kinds. Greedy, or with a seed. `chat_says`: what "chat" is answered, so that it can be stopped late."""
    said = [{"role": "user", "content": "What is the weather in Paris, and what is the tide in Brest? Be long."}]
    usage = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    chat: Fields = {"model": model, "messages": said, "max_tokens": tokens, **usage}
    plain = {"chat_template_kwargs": {"tag": "<think></think>"}}
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA, "strict": True}}
    text: Fields = {"model": model, "prompt": "Once upon a time there was", "max_tokens": tokens}
    claude: Fields = {"model": model, "messages": said, "max_tokens": tokens, "temperature": 0, "stream": True}
    response: Fields = {"model": model, "input": said, "max_output_tokens": tokens, "temperature": 0, "stream": True}
    parsed = {"text": {"format": {"type": "json_schema", "name": "place", "schema": _SCHEMA, "strict": True}}}
    several = _several(chat, schema, plain)
    kinds: dict[str, tuple[str, str, Fields]] = {
        "chat": ("chat", "chat/completions", chat),
        "chat, sampled": ("chat", "chat/completions", {**chat, "temperature": 1, "top_p": 0.95, "seed": 11}),
        "chat, stop strings": ("chat", "chat/completions", {**chat, "stop": ["\n\n\n", "tide in B", _late(chat_says)]}),
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
            **text, **usage, "regex": "([a-c]{2,4}-){60}🎉"}),
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
        **{name: ("chat", "chat/completions", fields) for name, fields in several.items()},
        **{f"{name}, whole": ("json", "chat/completions", {**fields, "stream": False, "stream_options": None})
           for name, fields in several.items()},
        "completions of two prompts": ("completion", "completions", {
            **text, **usage, **_SAMPLED, "prompt": ["Once upon a time there was", "ü"], "n": 2, "logprobs": 1}),
        "completions of three prompts, echo": ("completion", "completions", {
            **text, **usage, "prompt": ["Once", "upon a", "time there was"], "echo": True}),
        "completions, regular expression": ("completion", "completions", {
            **text, **usage, **_SAMPLED, "n": 3, "regex": "([a-c]{2,4}-){1,60}🎉"}),
        "count of tokens": ("json", "messages/count_tokens", {"model": model, "messages": said}),
        "count of input": ("json", "responses/input_tokens", {"model": model, "input": said}),
        "tokens of a text": ("json", "tokenize", {"model": model, "prompt": "Once upon a time " * 200}),
        "embeddings": ("json", "embeddings", {
            "model": model, "input": [f"{number}. {'Once upon a time ' * number}" for number in range(1, 17)]}),
    }  # fmt: skip
    return {
        name: Question(api, f"/v1/{path}", fields, is_short=path in _SHORT)
        for name, (api, path, fields) in kinds.items()
    }


def _several(chat: Fields, schema: Fields, plain: Fields) -> dict[str, Fields]:
    """Chats for several choices."""
    two: Fields = {**chat, **_SAMPLED, "n": 2}
    return {
        "two choices": two,
        "two choices, stop strings": {**two, "stop": ["\n\n", "qu", "in t"], "min_tokens": 40},
        "two choices, log-probabilities": {**two, "logprobs": True, "top_logprobs": 2},
        "three greedy choices": {**chat, "n": 3},
        "three greedy choices, schema": {**chat, "n": 3, "response_format": schema},
        "two choices, schema": {**two, "response_format": schema},
        "two choices, forced calls": {**two, "tools": _TOOLS, "tool_choice": "required"},
        "two choices, thinking and calls": {
            **two, **plain, "max_tokens": 2 * chat["max_tokens"], "tools": _TOOLS,
            "regex": f"{_THOUGHT}[A-Z]{{4}} {_CALL}"},
        "eight choices": {**chat, "n": 8, "temperature": 1, "top_p": 0.95, "seed": 6},
    }  # fmt: skip


def _late(text: str) -> str:
    """Four characters that first come late in a text."""
    places = range(len(text) * 3 // 4, len(text) - 4)
    return next((text[place : place + 4] for place in places if text.find(text[place : place + 4]) == place), "----")
