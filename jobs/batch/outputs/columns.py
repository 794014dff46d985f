"""The generated columns of an output: their names, and what the ledger's answers say for them."""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from ....core.errors import UsageError
from ..ledger.record import Record
from ..parameters import Parameters
from .answers import BESIDE, Generated, generated_of
from .form import Form
from .parsed import schema_type
from .types import Type

FINISH_REASON, USAGE, ERROR, MESSAGE, PARSED = "finish_reason", "usage", "error", "message", "parsed"
USAGE_FIELDS = ("prompt_tokens", "cached_tokens", "completion_tokens")

Raw = msgspec.Raw | msgspec.UnsetType
_UNSET, NO_VALUE = msgspec.UNSET, msgspec.Raw(b"null")


class KeptAnswer(msgspec.Struct):
    """An answer of the ledger (see answers.py), its parts still JSON."""

    text: msgspec.Raw = NO_VALUE
    finish_reason: msgspec.Raw = NO_VALUE
    usage: msgspec.Raw = NO_VALUE
    response: Raw = _UNSET
    tool_calls: Raw = _UNSET
    function_call: Raw = _UNSET
    refusal: Raw = _UNSET
    audio: Raw = _UNSET
    reasoning_content: Raw = _UNSET
    reasoning: Raw = _UNSET
    annotations: Raw = _UNSET
    logprobs: Raw = _UNSET

    def beside(self) -> dict[str, msgspec.Raw]:
        """What was said besides text and finish_reason."""
        values = ((name, getattr(self, name)) for name in BESIDE)
        return {name: value for name, value in values if value is not _UNSET}


class _Response(msgspec.Struct):
    body: msgspec.Raw


decode_kept = msgspec.json.Decoder(KeptAnswer).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_any = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class GeneratedColumns:
    """The names of the generated columns, and which of them are lists or have types of their own."""

    answer: str
    is_listed: bool  # several samples or turns: the answer and its finish_reason are lists
    parsed: Type | None  # of one answer; None: no column `parsed`
    has_message: bool  # one column for all that is said besides; else a column each, only where it was said

    @staticmethod
    def of(parameters: Parameters, form: Form) -> "GeneratedColumns":
        """Those of a batch in an output of this form."""
        return GeneratedColumns(
            answer=parameters.answer_column,
            is_listed=parameters.samples > 1 or bool(parameters.turns),
            parsed=None if parameters.schema is None else schema_type(parameters.schema),
            has_message=form.has_columns,
        )

    def check(self) -> None:
        """Raise UsageError for a name of the answer's column that another generated column has."""
        if self.names.count(self.answer) > 1:
            raise UsageError(f"--answer-column {self.answer}: expected another name than {', '.join(self.names[1:])}")

    @property
    def names(self) -> tuple[str, ...]:
        """Those that every row has, in their order."""
        message = (MESSAGE,) if self.has_message else ()
        parsed = () if self.parsed is None else (PARSED,)
        return (self.answer, FINISH_REASON, USAGE, ERROR, *message, *parsed)


def generated(record: Record) -> tuple[Generated, str | None]:
    """What a record says for columns with one type each, and what is said besides, as JSON.

    Of an answer in OpenAI's form the latter is the whole response.
    """
    if record.answer is None:
        return Generated(None, None, None), None
    kept = decode_kept(record.answer)
    if not isinstance(kept.response, msgspec.UnsetType):
        found = generated_of(_decode_response(kept.response).body)
        return found, bytes(kept.response).decode()
    text, reason, usage = (_decode_any(part) for part in (kept.text, kept.finish_reason, kept.usage))
    beside = kept.beside()
    return Generated(text, reason, usage), msgspec.json.encode(beside).decode() if beside else None


def renamed(name: str, taken: Set[str] | Mapping[str, Any]) -> str:
    """The name under which a value of a JSON row is kept whose own name a generated column has: `input_NAME`."""
    while (name := f"input_{name}") in taken:
        pass
    return name


def some_of(names: Set[str]) -> str:
    """Names of columns in words, the first 20 of them."""
    shown = sorted(names)[:20]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{', '.join(shown)}{more}"


def is_openai_row(value: Mapping[str, Any] | None, parameters: Parameters) -> bool:
    """Whether a row is a line of OpenAI's form, whose output is one too."""
    given = (parameters.prompt_column, parameters.messages_column, parameters.template)
    return value is not None and "custom_id" in value and all(one is None for one in given)


def openai_id(record: Record, shard: int) -> str:
    """The `id` of an output line in OpenAI's form: the same whenever the same input is computed."""
    place = f"{record.key}:{shard}:{record.index}".encode()
    return f"batch_req_{hashlib.blake2b(place, digest_size=16).hexdigest()}"
