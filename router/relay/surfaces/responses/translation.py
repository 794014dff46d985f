"""One request to /v1/responses, and its answer."""

from collections.abc import Callable
from typing import Any

import msgspec

from ...stream.events import payloads
from ..translation import CHAT
from . import response
from .asked import Asked
from .chat import chat_body
from .delta import Delta, usage
from .errors import renamed
from .history import History
from .output import Event, Output
from .tools import namespaces

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ResponsesTranslation:
    """Implements `Translation`.

    Args:
        asked: what the client asks for.
        history: the conversation before, and `asked.items` without references.
        id: of the response.
        clock: Unix seconds.
    """

    path = CHAT

    def __init__(self, asked: Asked, history: History, id: str, clock: Callable[[], float]) -> None:
        self.asked, self.history, self.id = asked, history, id
        self.body = chat_body(asked, [*history.before, *history.items])
        self.keep_for: str | None = None  # the tenant for whom the response is kept
        self.final: dict[str, Any] | None = None  # the response, once it is complete
        self._clock = clock
        self._response = response.begun(asked, id, clock())
        self._output = Output(id.removeprefix("resp_"), namespaces(asked.tools or []))
        self._sequence = 0
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._is_over = False

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The response for an answer in one piece."""
        self._take(answer)
        self._end()
        assert self.final is not None
        return self.final

    def events(self, data: bytes) -> bytes:
        """The events for whole events of chat completions. Comments stay as they are."""
        if self._is_over:
            return b""
        found = list(payloads(data))
        return b"".join(map(self._payload, found)) if found else data

    def end(self) -> bytes:
        """The last events, where they were not sent yet."""
        return b"" if self._is_over else self._begin() + self._written(self._end())

    def unkept(self) -> dict[str, Any]:
        """The response as it is where it could not be kept."""
        assert self.final is not None
        return {**self.final, "store": False}

    def last_event_unkept(self) -> bytes:
        """The last event again, with that response."""
        self._sequence -= 1
        response = self.unkept()
        return self._write({"type": f"response.{response['status']}", "response": response})

    def _payload(self, payload: bytes) -> bytes:
        if self._is_over:
            return b""
        if payload.strip() == b"[DONE]":
            return self.end()
        try:
            event = _decode(payload)
        except (ValueError, RecursionError):
            return b""
        if not isinstance(event, dict):
            return b""
        if isinstance(error := event.get("error"), dict):
            return self._begin() + self._written(self._fail(error))
        begun = self._begin(event.get("model"))
        return begun + self._written(self._take(event))

    def _begin(self, model: Any = None) -> bytes:
        if self._sequence:
            return b""
        self._name_model(model)
        states = ("response.created", "response.in_progress")
        return self._written([{"type": state, "response": self._response} for state in states])

    def _take(self, found: dict[str, Any]) -> list[Event]:
        """Take an answer or an event of chat completions."""
        self._name_model(found.get("model"))
        self._usage = usage(found.get("usage")) or self._usage
        choices = found.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        delta = Delta(choice, self.asked.wants_logprobs)
        self._finish = delta.finish or self._finish
        return delta.put_into(self._output)

    def _name_model(self, model: Any) -> None:
        if isinstance(model, str):
            self._response["model"] = model

    def _end(self) -> list[Event]:
        self._is_over = True
        events = self._output.end(response.is_complete(self._finish))
        self.final = response.ended(self._response, self._output.items, self._finish, self._usage, self._clock())
        return [*events, {"type": f"response.{self.final['status']}", "response": self.final}]

    def _fail(self, error: dict[str, Any]) -> list[Event]:
        """End with an error: as the event that SDKs raise, and as the response's last state."""
        self._is_over = True
        error = renamed(error)
        message = str(error.get("message") or "the engine has failed")
        code, param = error.get("code") or "server_error", error.get("param")
        told = {"type": error.get("type") or "server_error", "code": code, "message": message, "param": param}
        failure = response.failed(self._response, self._output.so_far(), message)
        return [
            {"type": "error", "code": str(code), "message": message, "param": param, "error": told},
            {"type": "response.failed", "response": failure},
        ]

    def _written(self, events: list[Event]) -> bytes:
        return b"".join(map(self._write, events))

    def _write(self, event: Event) -> bytes:
        written = _encode({"type": event["type"], "sequence_number": self._sequence, **event})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), written)
