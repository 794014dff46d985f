"""Rows of the output in JSON Lines.

A row has the input's columns, then the generated ones. What a row of a JSON Lines input has under the name of a
generated column is kept as `input_NAME`, unless it is null. Of Arrow's types those that JSON lacks become text:
timestamps, dates and times in RFC 3339, durations in ISO 8601, decimals in digits, binary in base64; NaN and infinite
numbers become null, maps lists of [key, value].
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..inputs.plan import Shard
from ..ledger.record import Record
from ..parameters import Parameters
from .columns import (
    ERROR,
    FINISH_REASON,
    NO_VALUE,
    PARSED,
    USAGE,
    GeneratedColumns,
    KeptAnswer,
    decode_kept,
    is_openai_row,
    openai_id,
    renamed,
)  # fmt: skip
from .parsed import parse_as_json
from .settled import Settled

_encode = msgspec.json.Encoder().encode
_NO_ANSWER = KeptAnswer()


class LineMaker:
    """Makes lines of a batch's output.

    Args:
        parameters: of the batch.
        columns: those that are generated.
        kept: columns of the input that are kept; None: all.
    """

    def __init__(self, parameters: Parameters, columns: GeneratedColumns, kept: tuple[str, ...] | None) -> None:
        self._parameters, self._columns, self._kept = parameters, columns, kept
        self._names = frozenset(columns.names)

    def lines(self, shard: Shard, rows: Iterator[Settled]) -> Iterator[bytes]:
        """The lines of a shard's rows, newlines included."""
        for value, record in rows:
            yield _encode(self._row(shard, value, record)) + b"\n"

    def _row(self, shard: Shard, value: Mapping[str, Any] | None, record: Record) -> dict[str, Any]:
        kept = _NO_ANSWER if record.answer is None else decode_kept(record.answer)
        if kept.response is not msgspec.UNSET or (record.answer is None and is_openai_row(value, self._parameters)):
            return _openai_line(shard, value or {}, record, kept)
        row = self._own(value or {})
        row[self._columns.answer] = self._listed(kept.text)
        row[FINISH_REASON] = self._listed(kept.finish_reason)
        row[USAGE] = kept.usage
        row[ERROR] = record.error
        if self._columns.parsed is not None:
            row[PARSED] = self._parsed(kept.text)
        if kept is not _NO_ANSWER:
            for name, said in kept.beside().items():
                if row.get(name) is not None:
                    row[renamed(name, row)] = row[name]
                row[name] = said
        return row

    def _own(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The row's own columns, from which those with the name of a generated one are moved away."""
        row = dict(value) if self._kept is None else {name: value[name] for name in self._kept if name in value}
        if not self._names.isdisjoint(row):
            for name in self._names & row.keys():
                own = row.pop(name)
                if own is not None:
                    row[renamed(name, row)] = own
        return row

    def _listed(self, part: msgspec.Raw) -> msgspec.Raw:
        if not self._columns.is_listed or part is NO_VALUE or bytes(part).startswith(b"["):
            return part
        return msgspec.Raw(b"[%b]" % bytes(part))

    def _parsed(self, text: msgspec.Raw) -> Any:
        said, type = msgspec.json.decode(text), self._columns.parsed
        assert type is not None
        if isinstance(said, list) or (self._columns.is_listed and said is not None):
            return [parse_as_json(one, type) for one in (said if isinstance(said, list) else [said])]
        return parse_as_json(said, type)


def _openai_line(shard: Shard, value: Mapping[str, Any], record: Record, kept: KeptAnswer) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/batch/request-output"""
    line = {"id": openai_id(record, shard.number), "custom_id": value.get("custom_id")}
    if record.answer is not None:
        return {**line, "response": kept.response, "error": None}
    error = {"code": _error_code(record.status), "message": record.error}
    response = None
    if record.status is not None:
        response = {"status_code": record.status, "request_id": None, "body": {"error": error}}
    return {**line, "response": response, "error": error}


def _error_code(status: int | None) -> str:
    if status is None:
        return "request_failed"
    if 200 <= status < 300:
        return "unusable_answer"
    return "invalid_request" if 400 <= status < 500 else "server_error"
