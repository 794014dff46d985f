"""Anthropic's messages API as the relay translates it."""

from collections.abc import Collection
from typing import Any

import msgspec

from .....core.net.anthropic import error_body
from ....http.messages import Head
from ...stream.usage import tokens_from
from ..translation import TranslationError
from .answer import message
from .asked import read
from .context import anthropic_words
from .request import chat_request
from .stream import MessageStream


class MessageTranslation:
    """One request to /v1/messages. Implements `Translation`."""

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


class CountTranslation:
    """One request to /v1/messages/count_tokens: an answer of one token, whose prompt the engine counts."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The count. Raises TranslationError where the engine does not tell it."""
        tokens = tokens_from(answer.get("usage"))
        if tokens is None or not tokens.prompt:
            raise TranslationError("it has no usage.prompt_tokens")
        return {"input_tokens": tokens.prompt}

    def events(self, data: bytes) -> bytes:
        """Nothing: no stream is asked for."""
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""


class _Surface:
    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer in the shape of Anthropic's API."""
        return error_body(status, anthropic_words(answer) if status == 400 else answer, request_id)


class Messages(_Surface):
    """POST /v1/messages. Implements `Surface`."""

    def translate(self, head: Head, body: bytes) -> MessageTranslation:
        """What stands for a request. Raises TranslationError."""
        asked = read(body)
        if asked.max_tokens is None:
            raise TranslationError("max_tokens: expected the most tokens that the answer may have", "max_tokens")
        return MessageTranslation(chat_request(asked), asked.model, asked.stop_sequences or (), head.id)


class CountTokens(_Surface):
    """POST /v1/messages/count_tokens. Implements `Surface`."""

    def translate(self, head: Head, body: bytes) -> CountTranslation:
        """What stands for a request. Raises TranslationError."""
        asked = msgspec.structs.replace(read(body), max_tokens=1, stream=None, output_format=None, output_config=None)
        return CountTranslation(chat_request(asked))
