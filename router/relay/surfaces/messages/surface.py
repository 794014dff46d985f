"""Anthropic's messages API as the relay translates it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Coroutine
from typing import Any, Generic

import msgspec

from .....core.background.fair_threads import FairThreads
from .....core.net.anthropic import error_body
from ....http.messages import Head, Reply
from ..counting import CountTranslation, Engines
from ..reply import TranslatingReply
from ..translation import CHAT, LARGE, Kind, TranslationError
from .answer import message
from .asked import read
from .context import anthropic_words
from .names import renamed_answer
from .request import chat_fields, chat_request
from .stream import MessageStream


class MessageTranslation:
    """One request to /v1/messages. Implements `Translation`."""

    path = CHAT

    def __init__(self, body: bytes, model: str | None, stops: Collection[str], request_id: str) -> None:
        self.body = body
        self._id, self._model, self._stops = f"msg_{request_id}", model, stops
        self._stream = MessageStream(self._id, model, stops, request_id)

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The message."""
        return message(answer, self._id, self._model, self._stops)

    def events(self, data: bytes) -> bytes:
        """The message's events."""
        return self._stream.feed(data)

    def end(self) -> bytes:
        """The last of them."""
        return self._stream.end()


class _Surface(ABC, Generic[Kind]):
    """Implements `Surface`."""

    def __init__(self, threads: FairThreads) -> None:
        self._threads = threads

    def translate(self, head: Head, body: bytes) -> Kind | Coroutine[Any, Any, Kind]:
        """What stands for a request. Raises TranslationError."""
        if len(body) > LARGE:
            return self._threads.run(head.tenant.name, lambda: self._translation(head, body))
        return self._translation(head, body)

    @abstractmethod
    def _translation(self, head: Head, body: bytes) -> Kind: ...

    def reply(self, reply: Reply, translation: Kind) -> Reply:
        """Where the answer of chat completions goes."""
        return TranslatingReply(reply, translation)

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer in the shape of Anthropic's API."""
        return error_body(status, anthropic_words(renamed_answer(answer)) if status == 400 else answer, request_id)


class Messages(_Surface[MessageTranslation]):
    """POST /v1/messages.

    Args:
        threads: where large requests are translated.
    """

    def _translation(self, head: Head, body: bytes) -> MessageTranslation:
        asked = read(body)
        if asked.max_tokens is None:
            expected = "expected how many tokens the answer may have at most"
            raise TranslationError(f"max_tokens: missing; {expected}", "max_tokens")
        return MessageTranslation(chat_request(asked), asked.model, asked.stop_sequences or (), head.id)


class CountTokens(_Surface[CountTranslation]):
    """POST /v1/messages/count_tokens.

    Args:
        threads: where large requests are translated.
        engines: of the workers of a model.
    """

    def __init__(self, threads: FairThreads, engines: Engines) -> None:
        super().__init__(threads)
        self._engines = engines

    def _translation(self, head: Head, body: bytes) -> CountTranslation:
        asked, config = read(body), None
        if asked.output_config is not None:  # whose effort is a variable of the chat template
            config = msgspec.structs.replace(asked.output_config, format=None)
        asked = msgspec.structs.replace(asked, max_tokens=1, stream=None, output_format=None, output_config=config)
        return CountTranslation(chat_fields(asked), {}, self._engines)
