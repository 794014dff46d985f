"""The form that a worker's answer must have, so that clients get nothing that is none of their API.

Known are chat completions, completions and embeddings. Any other answer is passed on as it is.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from ...http.messages import Headers
from .envelope import CHAT, COMPLETIONS, EMBEDDINGS, TOKENS, Envelope
from .events import payloads
from .usage import Tokens, tokens_from

_EVENTS = b"text/event-stream"
_EVENT = re.compile(rb"\r?\n\r?\n")
_PLAIN = (b"", b"identity")
_FORMATS = (None, "float", "base64")  # of embeddings as JSON; vLLM has others


class _Object(msgspec.Struct):
    pass


class _Tokens(msgspec.Struct):
    usage: Any = None


class _Choice(msgspec.Struct):
    message: _Object


class _Text(msgspec.Struct):
    text: str


class _Vector(msgspec.Struct):
    embedding: Raw


class _Chat(_Tokens, kw_only=True):
    choices: list[_Choice]


class _Completion(_Tokens, kw_only=True):
    choices: list[_Text]


class _Embeddings(_Tokens, kw_only=True):
    data: list[_Vector]


_answers: dict[str, Any] = {
    CHAT: msgspec.json.Decoder(_Chat).decode,
    COMPLETIONS: msgspec.json.Decoder(_Completion).decode,
    EMBEDDINGS: msgspec.json.Decoder(_Embeddings).decode,
    TOKENS: msgspec.json.Decoder(_Tokens).decode,
}


class _Event(msgspec.Struct):
    choices: list[_Object] | None = None
    error: Raw = Raw()


_event = msgspec.json.Decoder(_Event).decode


def wants_events(envelope: Envelope) -> bool | None:
    """Whether an answer must come as events; None where its form is not known."""
    if envelope.kind not in _answers or not envelope.is_read or envelope.encoding_format not in _FORMATS:
        return None
    return envelope.streams and envelope.kind in (CHAT, COMPLETIONS)


def fault_of_head(status: int, headers: Headers, events: bool) -> str:
    """Why the answer to a request of a known kind is none, by its head; empty: it may be one.

    Args:
        status: below 400.
        headers: with lower-case names.
        events: whether they are wanted.
    """
    if status >= 300:
        return f"it answers {status}, which is no answer"
    fields = dict(headers)
    if (encoding := fields.get(b"content-encoding", b"").strip().lower()) not in _PLAIN:
        return f"its answer is encoded ({encoding[:40].decode('latin-1')}), which nobody has asked for"
    has_events = fields.get(b"content-type", b"")[: len(_EVENTS)].lower() == _EVENTS
    if has_events and not events:
        return "it answers with a stream that nobody has asked for"
    if events and not has_events:
        return "its answer is no stream, and one was asked for"
    return ""


def tokens_of(kind: str, answer: bytes) -> Tokens | None:
    """The tokens of an answer in one piece; None where it does not say.

    Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError for what is no answer of this kind.
    """
    if not answer.isascii():
        answer.decode()
    found = _answers[kind](answer)
    if kind != TOKENS and not (found.data if kind == EMBEDDINGS else found.choices):
        raise msgspec.ValidationError("it has nothing in it")
    return tokens_from(found.usage)


def are_good(events: bytes) -> bool:
    """Whether the data of whole events has choices or an error, or is [DONE], as in both kinds of completions."""
    if not events.isascii():
        try:
            events.decode()
        except UnicodeDecodeError:
            return False
    if events.startswith(b"data: {") and events.endswith(b"}\n\n") and events.count(b"\n") == 2:  # what engines send
        return _is_event(events[6:-2])
    return b"\0" not in events and all(map(_is_good, _EVENT.split(events)))


def is_nothing(events: bytes) -> bool:
    """Whether whole events have nothing but [DONE]."""
    return list(payloads(events)) == [b"[DONE]"]


def _is_good(event: bytes) -> bool:
    data = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    if not data:
        return True
    payload = b"\n".join(data).strip()
    return payload == b"[DONE]" or _is_event(payload)


def _is_event(payload: bytes) -> bool:
    try:
        found = _event(payload)
    except (ValueError, RecursionError):
        return False
    return found.choices is not None or bool(found.error)
