"""What a translated API has to say: the chat request that stands for a request, and how its answer reads there."""

from typing import Any, Protocol


class TranslationError(Exception):
    """A request that cannot be translated, which is the client's mistake (400). `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.message, self.param = message, param
        super().__init__(message)


class Translation(Protocol):
    """One request, and its answer. Pure: it does no input or output, and knows nothing of workers.

    `body` is the JSON of the request to /v1/chat/completions. A stream's events come in order and whole, comments
    included; an error answer, or an error event in a stream, has OpenAI's shape: {"error": {"message", "type",
    "param", "code"}}.
    """

    body: bytes

    def whole(self, status: int, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer in one piece, or the error answer, in this API's shape."""

    def events(self, data: bytes) -> bytes:
        """Whole events of this API for whole events of chat completions; maybe none."""

    def end(self) -> bytes:
        """The events that are still to be sent where the stream of chat completions has ended."""
