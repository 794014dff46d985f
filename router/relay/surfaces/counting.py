"""How many tokens a request has, as its engine counts them.

The native engine and vLLM tell it at /tokenize, without computing anything. Where that might be another prompt than the
one that they compute, and with other engines, it is what an answer of one token says of its prompt.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ..stream.usage import tokens_from
from .translation import CHAT, TOKENIZE, TranslationError

# The engines of the workers of a model, by the name that the client uses for it.
Engines = Callable[[str | None], Collection[str]]
# What makes a prompt, of all fields of a chat request.
_OF_PROMPT = (
    "model", "messages", "tools", "tool_choice", "add_generation_prompt", "continue_final_message",
    "chat_template_kwargs", "reasoning_effort", "user",
)  # fmt: skip
_NATIVE, _VLLM = "native", "vllm"


class CountTranslation:
    """One request for a count. Implements `Translation`.

    Args:
        chat: the fields of the chat request whose prompt is to be counted.
        told: what the answer has beside the count.
        engines: of the workers of its model.
    """

    def __init__(self, chat: Mapping[str, Any], told: Mapping[str, Any], engines: Engines) -> None:
        self._told = told
        self.path = TOKENIZE if _tells(engines(chat.get("model")), chat) else CHAT
        if self.path == TOKENIZE:
            chat = {name: chat[name] for name in _OF_PROMPT if name in chat}
        self.body = msgspec.json.encode(chat)

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The count. Raises TranslationError where the engine does not tell it."""
        return {**self._told, "input_tokens": self._count(answer)}

    def events(self, data: bytes) -> bytes:
        """Nothing: no stream is asked for."""
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def _count(self, answer: dict[str, Any]) -> int:
        if self.path == TOKENIZE:
            count = answer.get("count")
            if type(count) is not int or count < 1:
                raise TranslationError("it has no count")
            return count
        tokens = tokens_from(answer.get("usage"))
        if tokens is None or not tokens.prompt:
            raise TranslationError("it has no usage.prompt_tokens")
        return tokens.prompt


def _tells(engines: Collection[str], chat: Mapping[str, Any]) -> bool:
    """Whether /tokenize of all these engines makes the same prompt of a chat as /v1/chat/completions does."""
    if not engines or not all(map(_is_text, chat["messages"])):
        return False
    if _VLLM in engines and ("reasoning_effort" in chat or "gpt-oss" in (chat.get("model") or "").lower()):
        return False  # its /tokenize does not know the field, and renders the template where its chat has Harmony
    return all(engine in (_NATIVE, _VLLM) for engine in engines)


def _is_text(message: Mapping[str, Any]) -> bool:
    """Whether a message has nothing that becomes other tokens than those of its text, as an image does."""
    content = message.get("content")
    return not isinstance(content, list) or all(part.get("type") == "text" for part in content)
