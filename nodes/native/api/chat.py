"""Chat messages to a prompt, by the model's own Jinja template, run in a sandbox as the transformers library does."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ....core.errors import CorruptModelError
from ..tokenizer import read_model_json

Message = Mapping[str, Any]
# Marks where the final message ends. Templates trim and split messages; this they leave alone.
_END = "\N{OBJECT REPLACEMENT CHARACTER}end-of-final-message\N{OBJECT REPLACEMENT CHARACTER}"


class ChatError(ValueError):
    """These messages cannot be rendered: the client's fault, or the template's."""


class ChatTemplate:
    """The chat template of one model. Raises CorruptModelError if it is not Jinja."""

    def __init__(self, directory: Path, special_tokens: Mapping[str, str]) -> None:
        source = _find_source(directory)
        self._special_tokens = special_tokens
        try:
            self._template = None if source is None else _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise CorruptModelError(f"chat template of {directory}, line {error.lineno}: {error}") from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for `messages`, whose contents are strings; `variables` are the client's own of the template.

        With `continue_final_message` the prompt ends where the last message's content does, so that the model
        writes on. Raises ChatError.
        """
        if self._template is None:
            raise ChatError("this model has no chat template: use /v1/completions")
        if continue_final_message:
            last = messages[-1]
            messages = [*messages[:-1], {**last, "content": (last["content"] or "") + _END}]
        try:
            text = self._template.render(
                **(variables or {}),
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            raise ChatError(f"the chat template refuses these messages: {error}") from error
        return _up_to_end(text) if continue_final_message else text


def _up_to_end(text: str) -> str:
    before, mark, _ = text.rpartition(_END)
    if not mark:
        raise ChatError("the chat template leaves the final message out: it cannot be continued")
    return before


def _find_source(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    template = read_model_json(directory, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several by name
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None


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
