"""A stream of chat completions as one of Anthropic's API.

Its blocks come one after the other: each is begun by its first part and ended by the first part of the next one.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from .....core.net.anthropic import stream_error_body
from ...stream.events import payloads
from .answer import call_id, opening
from .told import UNSIGNED, Choice, Ending, Function, Said, Told, ToolCall, ending, usage

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b,%b:%b}}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_MIXED = "the worker's stream goes on with a tool call after another one has begun"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Told).decode
# What a block begins as, and the type and field of its parts.
_BLOCKS: dict[str, tuple[dict[str, Any], bytes, bytes]] = {
    "text": ({"type": "text", "text": ""}, b'"text_delta"', b'"text"'),
    "thinking": ({"type": "thinking", "thinking": "", "signature": ""}, b'"thinking_delta"', b'"thinking"'),
    "tool_use": ({"type": "tool_use"}, b'"input_json_delta"', b'"partial_json"'),
}


class MessageStream:
    """The events of one message.

    Args:
        id_: of the message.
        model: that the request has asked for.
        stops: its stop sequences.
        request_id: for errors.
    """

    def __init__(self, id_: str, model: str | None, stops: Collection[str], request_id: str) -> None:
        self._id, self._model, self._stops, self._request_id = id_, model, stops, request_id
        self._out: list[bytes] = []
        self._has_begun = self._is_over = False
        self._open: str | None = None  # the type of the block that has begun
        self._index = -1  # of that block
        self._space = ""  # at the beginning of a text, which is none if nothing follows
        self._call: int | None = None  # which of the tool calls has begun last
        self._calls: set[int] = set()  # those that have begun
        self._early: dict[int, ToolCall] = {}  # parts of calls whose names have not come
        self._last: Choice | None = None  # that says why the answer has ended
        self._refuses = False
        self._usage: Any = None

    def feed(self, data: bytes) -> bytes:
        """The events for whole events of chat completions."""
        found = list(payloads(data))
        if not found and not self._is_over and data.lstrip().startswith(b":"):
            return _PING
        for payload in found:
            if not self._is_over:
                self._take(payload)
        return self._taken()

    def end(self) -> bytes:
        """The last events, if they have not been sent."""
        self._finish()
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _take(self, payload: bytes) -> None:
        if payload.strip() == b"[DONE]":
            self._finish()
            return
        try:
            told = _decode(payload)
        except (ValueError, RecursionError):
            self._fail(_error_in(payload))
            return
        if told.usage is not None:
            self._usage = told.usage
        self._begin(told.model)
        for choice in told.choices:
            if choice.index == 0 and not self._is_over:
                self._say(choice.delta or Said())
                if choice.finish_reason is not None:
                    self._last = choice

    def _say(self, said: Said) -> None:
        if said.thinking:
            self._part("thinking", said.thinking)
        if said.text:
            self._refuses |= bool(said.refusal)
            self._say_text(said.text)
        for place, call in enumerate(said.tool_calls or ()):
            if not self._is_over:
                self._say_call(place if call.index is None else call.index, call)

    def _say_text(self, text: str) -> None:
        if self._open != "text":
            self._space += text
            if not self._space.strip():
                return
            text, self._space = self._space, ""
        self._part("text", text)

    def _say_call(self, number: int, call: ToolCall) -> None:
        if number not in self._calls:
            call = self._with_early(number, call)
            if call.function is None or not call.function.name:
                self._early[number] = call
                return
            self._close()
            self._calls.add(number)
            self._call = number
            self._start("tool_use", id=call_id(call, self._id, number), name=call.function.name, input={})
        elif number != self._call or self._open != "tool_use":
            self._fail({"error": {"message": _MIXED}})
            return
        arguments = _arguments(call)
        if arguments:
            self._part("tool_use", arguments)

    def _with_early(self, number: int, call: ToolCall) -> ToolCall:
        """A part of a call with those before it."""
        early = self._early.pop(number, None)
        if early is None:
            return call
        name = call.function.name if call.function else None
        return ToolCall(number, call.id or early.id, Function(name, _arguments(early) + _arguments(call)))

    # Events.

    def _begin(self, model: str | None) -> None:
        if not self._has_begun:
            self._has_begun = True
            message = {**opening(self._id, model or self._model), "usage": usage(None)}
            self._event({"type": "message_start", "message": message})

    def _start(self, kind: str, **more: Any) -> None:
        self._open, self._index = kind, self._index + 1
        block = {**_BLOCKS[kind][0], **more}
        self._event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _part(self, kind: str, text: str) -> None:
        """The next part of a block, which is begun where another one is open, or none."""
        if self._open != kind:
            self._close()
            self._start(kind)
        _, delta, field = _BLOCKS[kind]
        self._out.append(_DELTA % (self._index, delta, field, _encode(text)))

    def _close(self) -> None:
        self._space = ""
        if self._open == "thinking":
            self._out.append(_DELTA % (self._index, b'"signature_delta"', b'"signature"', _encode(UNSIGNED)))
        if self._open is not None:
            self._out.append(_STOP % self._index)
            self._open = None

    def _finish(self) -> None:
        if self._is_over:
            return
        self._begin(None)
        self._close()
        self._is_over = True
        end = self._ending()
        delta = {"stop_reason": end.reason, "stop_sequence": end.sequence}
        self._event({"type": "message_delta", "delta": delta, "usage": usage(self._usage)})
        self._event({"type": "message_stop"})

    def _ending(self) -> Ending:
        return ending(self._last or Choice(), self._stops, calls=bool(self._calls), refuses=self._refuses)

    def _fail(self, error: dict[str, Any]) -> None:
        """End the stream with an error."""
        self._is_over = True
        self._event(stream_error_body(error, self._request_id), name=b"error")

    def _event(self, body: dict[str, Any], name: bytes = b"") -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (name or body["type"].encode(), _encode(body)))


def _arguments(call: ToolCall) -> str:
    """A part of a call's arguments as JSON."""
    arguments = call.function.arguments if call.function is not None else None
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return _encode(arguments).decode()


def _error_in(payload: bytes) -> dict[str, Any]:
    """The error event that `payload` is, or one that says that it is of no known form."""
    try:
        found = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and "error" in found:
        return found
    return {"error": {"message": "the worker has sent an event of an unknown form"}}
