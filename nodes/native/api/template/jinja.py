"""Jinja templates of chat models, run in a sandbox as the transformers library does. See process.py."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .arguments import with_arguments

# Marks where the final message ends. Templates trim and split messages; this they leave alone.
_END = "\N{OBJECT REPLACEMENT CHARACTER}end-of-final-message\N{OBJECT REPLACEMENT CHARACTER}"
_MOST_REASON = 300  # characters of an exception's message


class ChatError(ValueError):
    """These messages cannot be rendered: the client's fault, or the template's."""


class PromptTooLargeError(ChatError):
    """The rendered prompt has more bytes than fit into the context."""


class RenderCall(msgspec.Struct, frozen=True, kw_only=True):
    """What a template is to render, as it is sent to the process that does it."""

    messages: list[dict[str, Any]]  # whose contents are strings
    add_generation_prompt: bool
    continue_final_message: bool  # the prompt ends where the last message's content does, so that the model writes on
    most_bytes: int  # of the prompt
    variables: dict[str, Any] = {}  # the template's other ones
    tools: list[dict[str, Any]] | None = None  # as OpenAI has them


class Template:
    """A compiled chat template. Raises jinja2.TemplateSyntaxError."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = _environment()
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens
        self.variables = frozenset(find_undeclared_variables(environment.parse(source)))  # that it looks at

    def render(self, call: RenderCall) -> str:
        """The prompt that `call` asks for. Raises ChatError, PromptTooLargeError for more than `most_bytes`."""
        messages = call.messages
        if call.continue_final_message:
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": (last["content"] or "") + _END}]
        values = {
            **self._special_tokens, **call.variables, "messages": [with_arguments(message) for message in messages],
            "add_generation_prompt": call.add_generation_prompt, "tools": call.tools, "documents": None,
        }  # fmt: skip
        try:
            text = self._write(values, call.most_bytes)
        except ChatError:
            raise
        except Exception as error:  # a template can raise anything: this request fails alone
            raise ChatError(f"the chat template refuses these messages: {_reason(error)}") from error
        return _up_to_end(text) if call.continue_final_message else text

    def _write(self, values: Mapping[str, Any], most_bytes: int) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(values):
            size += len(piece.encode())
            if size > most_bytes:
                raise PromptTooLargeError(f"the chat template makes a prompt of more than {most_bytes} bytes")
            pieces.append(piece)
        return "".join(pieces)


def _reason(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, jinja2.TemplateError) and text else type(error).__name__
    return ": ".join(part for part in (name, text[:_MOST_REASON]) if part)


def _up_to_end(text: str) -> str:
    before, mark, _ = text.rpartition(_END)
    if not mark:
        raise ChatError("the chat template leaves the final message out: it cannot be continued")
    return before


def _environment() -> ImmutableSandboxedEnvironment:
    """What templates are written against: Hugging Face's documentation, "Writing a chat template"."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    return environment


class _GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}` marks the assistant's words for training: here it is its content."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, **options: Any) -> str:
    """Jinja's own escapes HTML, which a model should not see."""
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
