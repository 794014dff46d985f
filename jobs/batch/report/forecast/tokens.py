"""How many tokens a row's prompt has, and the text that the model reads: by its own tokenizer where that is known."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx
import jinja2

from .....core.errors import CorruptModelError, ModelNotFoundError
from .....nodes.native.api.template.chat_template import find_source
from .....nodes.native.api.template.jinja import ChatError, RenderCall, Template
from .....nodes.native.tokenizer import Tokenizer
from ...inputs.request import BatchRequest

_CHARACTERS_PER_TOKEN = 4.0
_ANSWERS_S = 10.0
_MOST_BYTES = 64 * 1024 * 1024


class TokenCounter(Protocol):
    """Counts the tokens of prompts."""

    basis: str  # how, in words

    def count(self, request: BatchRequest) -> int | None:
        """Tokens of the prompt, after the chat template; None where that is not known of this one."""


class ModelTokens:
    """By the tokenizer and the chat template in a model's directory.

    Raises ModelNotFoundError or CorruptModelError for a directory without a tokenizer that can be read.
    """

    basis = "counted with the model's own tokenizer"

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer(directory)
        source = find_source(directory)
        try:
            self._template = None if source is None else Template(source, self._tokenizer.special_tokens)
        except jinja2.TemplateSyntaxError as error:
            raise CorruptModelError(f"chat template of {directory}: {error}") from error

    def text(self, request: BatchRequest) -> str | None:
        """What the model reads; None where the template refuses it, or it has parts that are no text."""
        prompt, messages = request.body.get("prompt"), request.body.get("messages")
        if isinstance(prompt, str):
            return prompt
        if not isinstance(messages, list) or self._template is None or not all(map(_is_text, messages)):
            return None
        variables = {"tools": request.body["tools"]} if request.body.get("tools") else {}
        try:
            return self._template.render(
                RenderCall(
                    messages=[_flat(message) for message in messages],
                    add_generation_prompt=True,
                    continue_final_message=False,
                    most_bytes=_MOST_BYTES,
                    variables=variables,
                )
            )
        except ChatError:
            return None

    def count(self, request: BatchRequest) -> int | None:
        """As TokenCounter."""
        text = self.text(request)
        is_completion = isinstance(request.body.get("prompt"), str)  # a chat template writes special tokens itself
        return None if text is None else len(self._tokenizer.encode(text, add_special_tokens=is_completion))


class EndpointTokens:
    """By the page /tokenize that vLLM has, and servers like it.

    Args:
        url: of the endpoint, with or without /v1.
        key: of its API, if it wants one.
        model: as requests name it; None: the endpoint's only one.
    """

    basis = "counted by the endpoint"

    def __init__(self, url: str, key: str | None, model: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1") + "/tokenize"
        self._model = {} if model is None else {"model": model}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=_ANSWERS_S, trust_env=False, headers=headers)
        self._answers = True

    def count(self, request: BatchRequest) -> int | None:
        """As TokenCounter. Once the page has not answered, it is not asked again."""
        asked = {name: request.body[name] for name in ("prompt", "messages", "tools") if name in request.body}
        if not self._answers:
            return None
        try:
            answer = self._client.post(self._url, json={**self._model, **asked})
            count = answer.raise_for_status().json()["count"]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            self._answers = False
            return None
        return count if isinstance(count, int) and count >= 0 else None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class EstimatedTokens:
    """By the length of the text."""

    basis = "estimated as characters / 4, since the model's tokenizer is not known here"

    def count(self, request: BatchRequest) -> int:
        """As TokenCounter."""
        return math.ceil(request.prompt_bytes / _CHARACTERS_PER_TOKEN)


def counted(counters: Sequence[TokenCounter], requests: Sequence[BatchRequest]) -> tuple[list[int], str]:
    """Tokens of each prompt by the first counter that knows all of them, and how they were counted."""
    for counter in counters:
        counts = []
        for request in requests:
            count = counter.count(request)
            if count is None:
                break
            counts.append(count)
        else:
            return counts, counter.basis
    fallback = EstimatedTokens()
    return [fallback.count(request) for request in requests], fallback.basis


def model_tokens(directory: Path) -> ModelTokens | None:
    """A counter for a model's directory; None where it has no tokenizer that can be read."""
    try:
        return ModelTokens(directory) if directory.is_dir() else None
    except (ModelNotFoundError, CorruptModelError):
        return None


def plain_text(request: BatchRequest) -> str:
    """What is sent, as a person reads it, where the model's template is not known."""
    prompt, messages = request.body.get("prompt"), request.body.get("messages")
    if isinstance(prompt, str):
        return prompt
    if not isinstance(messages, list):
        return json.dumps(request.body, ensure_ascii=False)
    return "\n".join(f"[{_role(message)}] {_content(message)}" for message in messages)


def _role(message: Any) -> str:
    return str(message.get("role", "?")) if isinstance(message, Mapping) else "?"


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else message
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)


def _is_text(message: Any) -> bool:
    if not isinstance(message, Mapping):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content)
    return content is None or isinstance(content, str)


def _flat(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its content as one string."""
    content = message.get("content")
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content or ""
    return {**message, "content": text}
