"""What a translated API has to say: the chat request that stands for a request, and how its answer reads there."""

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from ...http.messages import Head, Reply

CHAT, TOKENIZE = "/v1/chat/completions", "/v1/tokenize"
# Bytes of a request, or of what it goes on with, from which on other requests do not wait for its translation: one of
# many small blocks takes a second for 3 MB.
LARGE = 256 * 1024


class TranslationError(Exception):
    """A request that cannot be translated, which is the client's mistake. `param` names the field.

    `status`: HTTP's, where 400 does not say it. `code`: as OpenAI's API has it.
    """

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        self.message, self.param, self.status, self.code = message, param, status, code
        super().__init__(message)


class Translation(Protocol):
    """One request, and its answer. Pure: it does no input or output, and knows nothing of workers.

    `body` is the JSON of the request to `path`, CHAT or TOKENIZE. One to CHAT asks for `stream_options.include_usage`
    where its stream is to tell token counts. The events of a stream come in order and whole, several at once or one by
    one, comments and `[DONE]` included. An error event has OpenAI's shape: {"error": {"message", "type", "param",
    "code"}}; nothing but `end` follows it. What an engine sends may have any form: nothing else may be raised.
    """

    path: str
    body: bytes

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer in one piece, in this API's shape. Errors do not come here but to `Surface.error`.

        Raises TranslationError for an answer of an unknown form: the client gets 502.
        """

    def events(self, data: bytes) -> bytes:
        """Whole events of this API for whole events of chat completions; maybe none."""

    def end(self) -> bytes:
        """The events that are still to be sent where the stream of chat completions has ended."""


Kind = TypeVar("Kind", bound=Translation)


class Surface(Protocol[Kind]):
    """An API that is translated, by translations of one kind."""

    def translate(self, head: Head, body: bytes) -> Kind | Coroutine[Any, Any, Kind]:
        """What stands for a request: its head, and its body as it came; a coroutine where it has to be waited for.

        Both raise TranslationError.
        """

    def reply(self, reply: Reply, translation: Kind) -> Reply:
        """Where the answer to the request that stands for a client's goes. `reply` is the client's own."""

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer of OpenAI's shape in this API's shape. One that has that shape already stays as it is."""
