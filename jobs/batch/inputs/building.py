"""From a row to what is asked for it: columns, templates, and requests that rows spell out themselves."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ....core.errors import UsageError
from ..parameters import Parameters
from .messages import messages_of, shown, size_of
from .own import Asked, parse_own
from .request import CHAT, COMPLETIONS, GENERATES, BadRowError, BatchRequest, key_of
from .row import Row
from .templates.template import Template, no_column


class Builder:
    """Builds requests as the batch's parameters say.

    Raises UsageError for parameters that contradict each other, a template that is none, a schema that is none.
    """

    def __init__(self, parameters: Parameters) -> None:
        _check(parameters)
        self._parameters = parameters
        self._template = _template("--template", parameters.template)
        self._system = _template("--system", parameters.system)
        self._turns = [Template("--turn", text) for text in parameters.turns]
        self._response_format = None if parameters.schema is None else _response_format(parameters.schema)
        self.columns = self._columns()

    columns: tuple[str, ...] | None  # that are needed of a file of columns; None: all

    def build(self, row: Row) -> BatchRequest:
        """What the row asks for. Not for blank rows and problems. Raises BadRowError, and nothing else."""
        value = row.value
        assert value is not None, "blank rows and problems ask for nothing"
        try:
            asked = self._asked(row, value)
            self._add(asked, row, value)
            self._check(asked)
            key = key_of(asked.path, asked.body, asked.turns, asked.id)
        except RecursionError as error:
            raise BadRowError("nested too deeply") from error
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise BadRowError(f"has a value that JSON cannot hold: {error}") from error
        return BatchRequest(
            shard=row.shard,
            index=row.index,
            line=row.line,
            key=key,
            path=asked.path,
            body=asked.body,
            whole_answer=asked.whole_answer,
            id=asked.id,
            turns=asked.turns,
            prompt_bytes=_size(asked),
        )

    def _asked(self, row: Row, value: Mapping[str, Any]) -> Asked:
        parameters = self._parameters
        if parameters.messages_column is not None:
            name = parameters.messages_column
            messages = messages_of(name, _column(row, value, name))
            return Asked(CHAT, {"messages": messages}, _id(value))
        if self._template is not None:
            text = self._template.render(value, row.columns or tuple(value))
        elif parameters.prompt_column is not None:
            text = _text(row, value, parameters.prompt_column)
        elif row.format == "text":
            text = value["prompt"]
        else:
            return parse_own(row)
        if parameters.completions:
            return Asked(COMPLETIONS, {"prompt": text}, _id(value))
        return Asked(CHAT, {"messages": [{"role": "user", "content": text}]}, _id(value))

    def _add(self, asked: Asked, row: Row, value: Mapping[str, Any]) -> None:
        """What the batch says for all rows, where the row does not."""
        columns = row.columns or tuple(value)
        if self._system is not None:
            _require_chat(asked, "--system")
            messages = asked.body["messages"]
            if not (messages and isinstance(messages[0], dict) and messages[0].get("role") == "system"):
                system = {"role": "system", "content": self._system.render(value, columns)}
                asked.body = {**asked.body, "messages": [system, *messages]}
        if self._turns and not asked.turns:
            _require_chat(asked, "--turn")
            asked.turns = tuple(turn.render(value, columns) for turn in self._turns)
        if self._response_format is not None and asked.path in GENERATES and "response_format" not in asked.body:
            asked.body = {**asked.body, "response_format": self._response_format}

    def _check(self, asked: Asked) -> None:
        body = asked.body
        if body.get("stream"):
            raise BadRowError("stream: a batch takes whole answers; leave it out")
        samples = body.get("n", self._parameters.samples)
        if "n" in body and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
            if samples is not None:
                raise BadRowError(f"n: expected an integer of at least 1, got {shown(samples)}")
            samples = 1
        if asked.turns:
            _require_chat(asked, "turns")
            if samples > 1:
                raise BadRowError(f"turns: expected n = 1, got {samples}: a conversation goes on with one answer")

    def _columns(self) -> tuple[str, ...] | None:
        parameters = self._parameters
        column = parameters.messages_column or parameters.prompt_column
        if column is None and self._template is None:
            return None
        found = {"id"} if column is None else {"id", column}
        for template in [self._template, self._system, *self._turns]:
            if template is not None:
                if template.columns is None:
                    return None
                found |= template.columns
        return tuple(sorted(found))


def _check(parameters: Parameters) -> None:
    ways = {
        "--prompt-column": parameters.prompt_column,
        "--messages-column": parameters.messages_column,
        "--template": parameters.template,
    }
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: expected one of them, since each says what a row asks for")
    if parameters.samples < 1:
        raise UsageError(f"--samples {parameters.samples}: expected 1 or more")
    if parameters.turns and parameters.samples > 1:
        raise UsageError(f"--turn and --samples {parameters.samples}: expected one of them")
    chat = {"--messages-column": parameters.messages_column, "--system": parameters.system, "--turn": parameters.turns}
    for name, value in chat.items():
        if parameters.completions and value:
            raise UsageError(f"--completions and {name}: a completion has no messages; leave out one of them")


def _template(name: str, text: str | None) -> Template | None:
    return None if text is None else Template(name, text)


def _response_format(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--schema: expected a JSON schema: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError(f'--schema: expected a JSON schema, such as {{"type": "object"}}, got {shown(schema)}')
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _column(row: Row, value: Mapping[str, Any], name: str) -> Any:
    if name not in value:
        raise BadRowError(no_column(name, row.columns or tuple(value)))
    return value[name]


def _text(row: Row, value: Mapping[str, Any], name: str) -> str:
    found = _column(row, value, name)
    if not isinstance(found, str):
        raise BadRowError(f"{name}: expected text, got {'null' if found is None else shown(found)}")
    return found


def _id(value: Mapping[str, Any]) -> str | int | None:
    """A row's id, where a column of that name holds what can be one."""
    found = value.get("id")
    return found if isinstance(found, str) or (isinstance(found, int) and not isinstance(found, bool)) else None


def _require_chat(asked: Asked, name: str) -> None:
    if asked.path != CHAT or not isinstance(asked.body.get("messages"), list):
        raise BadRowError(f"{name}: only for chat messages, and the row asks for {asked.path}")


def _size(asked: Asked) -> int:
    """Characters that must be computed before the answer, about."""
    prompt, messages = asked.body.get("prompt"), asked.body.get("messages")
    size = len(prompt) if isinstance(prompt, str) else 0
    if isinstance(messages, list):
        size += size_of(messages)
    return size + sum(map(len, asked.turns))
