"""Server-sent events as bytes: only whole ones may leave, so that an error event can follow at any time."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .envelope import MESSAGES, RESPONSES

_END = re.compile(rb"\r?\n\r?\n")
_TOKEN_IDS = re.compile(rb',"token_ids":\[[0-9,]*\]')
_PROMPT_IDS = b',"prompt_token_ids":['  # of vLLM, in the first event; there may be many thousands of them
# Quotes within strings are escaped, so that none of these can be a part of generated text.
_USAGE_EVENT = re.compile(rb'data: ?\{[^\r\n]*"choices": ?\[\][^\r\n]*\r?\n\r?\n')
_ERROR = re.compile(rb'^(?:event: ?error\r?\n)?data: ?(\{ ?"error"[^\r\n]*)', re.MULTILINE)
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_ENDS = {
    MESSAGES: re.compile(rb"^event: ?message_stop|^data: ?\{\"type\": ?\"message_stop\"", re.MULTILINE),
    RESPONSES: re.compile(rb"^event: ?response\.(?:completed|failed|incomplete)", re.MULTILINE),
}
_MOST_USAGE = 4096  # bytes
_USAGE = re.compile(rb'"usage": ?\{')
_raw_decode = json.JSONDecoder().raw_decode


class EventGate:
    """Lets whole events through as they come and holds back the beginning of one.

    A worker that dies in the middle of an event would otherwise leave half of one, and whatever we add would be read
    as its other half.
    """

    __slots__ = ("_held", "_tail", "held_bytes")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._tail = b""  # the last bytes that are held: a blank line may have begun there
        self.held_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that are there after `chunk`; possibly none."""
        if not self._held and chunk.endswith(b"\n\n"):
            return chunk
        end = _last_end(self._tail + chunk) - len(self._tail)
        if end <= 0:
            self._hold(chunk)
            return b""
        whole = b"".join((*self._held, chunk[:end]))
        self._held, self._tail, self.held_bytes = [], b"", 0
        self._hold(chunk[end:])
        return whole

    def rest(self) -> bytes:
        """What is held at a clean end: a last event without its blank line."""
        return b"".join(self._held)

    def _hold(self, chunk: bytes) -> None:
        if chunk:
            self._held.append(chunk)
            self._tail = (self._tail + chunk[-2:])[-2:]
            self.held_bytes += len(chunk)


def _last_end(data: bytes) -> int:
    """Where the last event in `data` ends; 0: there is no end."""
    line, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    return max(line + 2 if line >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def payloads(data: bytes) -> Iterator[bytes]:
    """The data of each whole event; comments and other fields are left out."""
    for event in _END.split(data):
        lines = event.splitlines()
        found = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        if found:
            yield b"\n".join(found)


def without_token_ids(data: bytes) -> bytes:
    """Events without the token ids that the router has asked for, and the client has not."""
    while (start := data.find(_PROMPT_IDS)) >= 0 and (end := data.find(b"]", start)) >= 0:
        data = data[:start] + data[end + 1 :]
    return _TOKEN_IDS.sub(b"", data) if b',"token_ids":[' in data else data


def without_usage(data: bytes) -> bytes:
    """Events without the last one that has only the token counts, which the client has not asked for."""
    return _USAGE_EVENT.sub(b"", data) if b'choices":[]' in data or b'choices": []' in data else data


def usage_of(data: bytes) -> dict[str, Any] | None:
    """The last token counts in `data`, whole events or a whole answer; None if there are none."""
    place = max(data.rfind(b'usage":{'), data.rfind(b'usage": {'))
    if place < 0:
        return None
    try:
        usage = _raw_decode(data[data.index(b"{", place) :].decode())[0]
    except (ValueError, RecursionError):
        return None
    return usage if isinstance(usage, dict) else None


def usages_together(data: bytes, before: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The counts of all usages in whole events and of `before`, the largest of each name; None if there are none.

    Anthropic's streams tell the tokens of the prompt at their beginning, and those of the answer at their end.
    """
    found = before
    for place in _USAGE.finditer(data):
        try:
            usage = _raw_decode(data[place.end() - 1 : place.end() + _MOST_USAGE].decode(errors="replace"))[0]
        except (ValueError, RecursionError):
            continue
        counts = {name: count for name, count in usage.items() if type(count) is int}
        found = {**(found or {}), **{name: max(count, (found or {}).get(name, 0)) for name, count in counts.items()}}
    return found


def is_end(kind: str, data: bytes) -> bool:
    """Whether whole events in `data` say that the stream of an API is complete. One that ends without was cut."""
    if kind in _ENDS:
        return _ENDS[kind].search(data) is not None
    return b"[DONE]" in data and _DONE.search(data) is not None


def split_error(data: bytes) -> tuple[bytes, dict[str, Any]] | None:
    """Events of OpenAI's form before the first error event in `data`, and that event; None if there is none."""
    found = _ERROR.search(data)
    if found is None:
        return None
    try:
        event = msgspec.json.decode(found[1])
    except (ValueError, RecursionError):
        return None
    return data[: found.start()], event


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream, as OpenAI's clients understand it."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def stream_error(kind: str, message: str, code: str = "worker_lost") -> bytes:
    """An error event in the form of the API of `kind`, one of those of envelope.py. The stream ends with it."""
    if kind == MESSAGES:
        return _named_event({"type": "error", "error": {"type": "api_error", "message": message}})
    if kind == RESPONSES:
        return _named_event({"type": "error", "code": code, "message": message, "param": None})
    return error_event({"error": {"message": message, "type": "server_error", "param": None, "code": code}})


def _named_event(body: dict[str, Any]) -> bytes:
    return b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"
