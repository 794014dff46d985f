"""The prompt of a request as a text: engines compute a beginning that several prompts share only once."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from .envelope import MOST_CONTAINERS, RESPONSES, TOO_DEEP, Envelope, EnvelopeError, is_big, is_given, loosely

_MOST_CACHED = 1 << 16  # bytes of a list of tools
_SEPARATOR = "\0"


class _Part(msgspec.Struct):
    """A part of a message's content, in any of the three APIs."""

    text: str | None = None
    image_url: Any = None
    source: Any = None
    input: Any = None
    name: Any = None
    id: Any = None
    tool_use_id: Any = None
    content: Any = None
    thinking: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    id: str | None = None


class _Message(msgspec.Struct, gc=False):
    """What templates render of a message. Other fields, such as `refusal`, are left alone."""

    role: str | None = None
    content: str | list[_Part] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None


_messages = msgspec.json.Decoder(list[_Message])
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def prompt_text(envelope: Envelope) -> bytes:
    """What the prompt is made of, in the order in which a chat template renders it; empty where nothing is known.

    It is the same for the same conversation, however its JSON is written, and a conversation that goes on begins with
    what it was before. Token ids take four bytes each. Raises EnvelopeError for what is nested too deep.
    """
    try:
        return _prompt_text(envelope)
    except RecursionError as error:  # it could just be decoded
        raise EnvelopeError(TOO_DEEP) from error


def _prompt_text(envelope: Envelope) -> bytes:
    text = "".join(_tools(envelope.tools)) if is_given(envelope.tools) else ""
    for raw in (envelope.system, envelope.instructions):
        if raw and is_given(raw):
            text += _SEPARATOR.join(("", "system", _content(loosely(raw))))
    if is_given(envelope.messages):
        return (text + _conversation(envelope.messages)).encode(errors="surrogatepass")
    raw = next(filter(is_given, (envelope.prompt, envelope.input, envelope.input_ids, envelope.text)), Raw(b"null"))
    prompt = loosely(raw)
    if envelope.kind == RESPONSES and isinstance(prompt, list):
        return (text + _conversation(raw)).encode(errors="surrogatepass")
    return text.encode(errors="surrogatepass") + b"".join(_prompts(prompt))


def _conversation(raw: Raw) -> str:
    if is_big(raw):
        return bytes(raw).decode()
    try:
        messages = _messages.decode(raw)
    except (ValueError, RecursionError):  # of a form that is not known here, or wrong: the engine will say
        messages = loosely(raw)
        return "".join(map(_loose_message, messages)) if _is_list(messages) else _content(messages)
    pieces: list[str] = []
    for message in messages:
        pieces += (_SEPARATOR, message.role or "", _SEPARATOR)
        if message.name:
            pieces += (message.name, _SEPARATOR)
        if reasoning := message.reasoning_content or message.reasoning:
            pieces += (reasoning, _SEPARATOR)
        content = message.content
        if isinstance(content, str):
            pieces.append(content)
        elif content:
            pieces += map(_part, content)
        if message.tool_calls:
            pieces += _calls(message.tool_calls)
        if message.tool_call_id:
            pieces += (_SEPARATOR, message.tool_call_id)
    return "".join(pieces)


def _part(part: _Part) -> str:
    """Text as it is, anything else as canonical JSON."""
    if part.text is not None:
        return part.text
    fields = {name: value for name in part.__struct_fields__ if (value := getattr(part, name)) is not None}
    return _canonical(fields)


def _calls(calls: Sequence[_ToolCall]) -> Iterator[str]:
    for call in calls:
        function = call.function or _Function()
        arguments = function.arguments
        text = arguments if isinstance(arguments, str) else "" if arguments is None else _canonical(arguments)
        yield _SEPARATOR.join(("", call.id or "", function.name or "", text))


def _loose_message(message: Any) -> str:
    if not isinstance(message, Mapping):
        return _SEPARATOR + _content(message)
    role, content = message.get("role") or message.get("type"), message.get("content")
    if content is None:
        content = {name: value for name, value in message.items() if value is not None}
    return _SEPARATOR.join(("", str(role or ""), _content(content)))


def _content(content: Any) -> str:
    """A string, or the parts of a content one after the other."""
    if isinstance(content, str):
        return content
    if not _is_list(content):
        return "" if content is None else _canonical(content)
    return "".join(
        part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else _canonical(part)
        for part in content
    )


def _prompts(prompt: Any) -> Iterator[bytes]:
    """A string, token ids, or a list of either."""
    if isinstance(prompt, str) or _are_ids(prompt):
        yield _one_prompt(prompt)
    elif _is_list(prompt):
        for item in prompt:  # what is nested deeper is no prompt: the engine will say so
            yield _one_prompt(item)
            yield b"\0"
    elif prompt is not None:
        yield _encode(prompt)


def _one_prompt(prompt: Any) -> bytes:
    if isinstance(prompt, str):
        return prompt.encode(errors="surrogatepass")
    if _are_ids(prompt):
        try:
            return array("I", prompt).tobytes()
        except (TypeError, OverflowError):
            pass
    return _encode(prompt)


def _is_list(value: Any) -> bool:
    """Whether a value is a list to be looked at one by one. One of very many, such as of numbers, is not."""
    return isinstance(value, list) and len(value) <= MOST_CONTAINERS


def _are_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)


def _tools(raw: Raw) -> tuple[str]:
    data = bytes(raw)
    return (_cached_canonical(data) if len(data) <= _MOST_CACHED else _canonical(loosely(raw)),)


@lru_cache(maxsize=64)
def _cached_canonical(data: bytes) -> str:
    """The same tools stand in each request of a conversation."""
    return _canonical(loosely(Raw(data)))


def _canonical(value: Any) -> str:
    """JSON without spaces, the keys in order."""
    return _encode_sorted(value).decode()
