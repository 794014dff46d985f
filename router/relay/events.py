"""Server-sent events as bytes: only whole ones may leave, so that an error event can follow at any time."""

import json
from typing import Any


class EventGate:
    """Lets whole events through as they come and holds back the beginning of one.

    A worker that dies in the middle of an event would otherwise leave half of one, and whatever we add would be read
    as its other half.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that are there after `chunk`; possibly none."""
        data = self._held + chunk if self._held else chunk
        if data.endswith(b"\n\n"):
            self._held = b""
            return data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:  # neither was found
            end = 0
        self._held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is held at a clean end: a last event without its blank line."""
        return self._held


def error_event(body: dict[str, Any]) -> bytes:
    """An error in the middle of a stream, as OpenAI's clients understand it."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"
