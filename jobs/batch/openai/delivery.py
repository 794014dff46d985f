"""The output and the error file of a batch, made from its ledger, in the order of its input."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ....core.errors import BatchError
from ....core.net.openai import error_body
from ....router.batches.files import Draft
from ....router.batches.ids import FILE, derived_id
from ....router.batches.records import BatchRecord, FileRecord
from ....router.batches.store import INPUT, BatchStore
from ..inputs.plan import Plan
from ..ledger.ledger import Ledger
from ..ledger.record import Record
from ..parameters import Parameters

_PIECE = 2**20  # bytes written at once


@dataclass(frozen=True, kw_only=True)
class Unsettled:
    """What is said of a request that has no answer and was not refused, by OpenAI's names."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What was made of a ledger. Without such lines there is no file."""

    output_file_id: str | None
    error_file_id: str | None
    completed: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class Delivery:
    """Makes the two files of one batch. Made again after a crash, they have the same ids, and are there once.

    Args:
        store: of the deployment's batches.
        record: of the batch.
        ledger: its folder, which need not be there.
        parameters: of the ledger.
        at: Unix seconds, the same each time: for the ids.
        unsettled: for requests that are not settled.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: BatchStore,
        record: BatchRecord,
        ledger: Path,
        parameters: Parameters,
        *,
        at: int,
        unsettled: Unsettled,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._record, self._ledger, self._at = store, record, ledger, at
        self._parameters, self._unsettled, self._clock = parameters, unsettled, clock

    def make(self) -> Delivered:
        """Write both files, and let the tenant see them when they are whole. Raises BatchError, RunDirectoryError."""
        output, errors = _Lines(self._store.files.draft()), _Lines(self._store.files.draft())
        tokens = [0, 0, 0, 0]
        try:
            for custom_id, record in self._rows():
                if record is not None and record.answer is not None:
                    output.add(_answer_line(custom_id, record.answer))
                else:
                    errors.add(self._error_line(custom_id, record))
                if record is not None:
                    used = (
                        record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.reasoning_tokens,
                    )  # fmt: skip
                    tokens = [before + more for before, more in zip(tokens, used, strict=True)]
            return Delivered(
                output_file_id=self._keep(output, "output"),
                error_file_id=self._keep(errors, "error"),
                completed=output.count,
                failed=errors.count,
                prompt_tokens=tokens[0],
                cached_tokens=tokens[1],
                completion_tokens=tokens[2],
                reasoning_tokens=tokens[3],
            )
        finally:
            output.discard()
            errors.discard()

    def _rows(self) -> Iterator[tuple[str, Record | None]]:
        """Of each request its `custom_id` and its end, as far as there is one."""
        path = self._store.folder(self._record.id) / INPUT
        try:
            with self._settled() as settled, path.open("rb") as file:
                for place, line in enumerate(file):
                    if line.strip():
                        yield _custom_id(line), settled(place)
        except OSError as error:
            raise BatchError(f"cannot read {path}: {error.strerror}") from error

    @contextmanager
    def _settled(self) -> Iterator[Callable[[int], Record | None]]:
        """What gives the record of the row at a place in the input, asked for in order."""
        if not self._ledger.is_dir():
            yield lambda place: None
            return
        with Ledger(self._ledger, self._parameters, _no_plan, retry_failed=False) as ledger:
            yield _InOrder(ledger).at

    def _keep(self, lines: "_Lines", kind: str) -> str | None:
        if not lines.count:
            return None
        now, kept_s = int(self._clock()), self._record.output_kept_s
        id = derived_id(FILE, self._record.tenant, self._at, f"{self._record.id} {kind}")
        lines.keep(
            FileRecord(
                id=id,
                tenant=self._record.tenant,
                filename=f"{self._record.id}_{kind}.jsonl",
                purpose="batch_output",
                bytes=lines.size,
                created_at=now,
                expires_at=None if kept_s is None else now + kept_s,
            )
        )
        return id

    def _error_line(self, custom_id: str, record: Record | None) -> bytes:
        if record is None or record.error is None:
            said = {"code": self._unsettled.code, "message": self._unsettled.message}
            return _line(custom_id, None, said)
        if record.status is None or record.status < 400:
            return _line(custom_id, None, {"code": "request_failed", "message": record.error})
        body = error_body(record.status, record.error)
        return _line(custom_id, {"status_code": record.status, "request_id": None, "body": body}, None)


class _Lines:
    """A file that grows by lines."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._pieces = bytearray()
        self.count = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._draft.size + len(self._pieces)

    def add(self, line: bytes) -> None:
        """Append a line, its end included."""
        self.count += 1
        self._pieces += line
        if len(self._pieces) >= _PIECE:
            self._write()

    def keep(self, record: FileRecord) -> None:
        """Let the tenant see the file."""
        self._write()
        self._draft.keep(record)

    def discard(self) -> None:
        """Forget it, unless it was kept."""
        self._draft.discard()

    def _write(self) -> None:
        self._draft.write(bytes(self._pieces))
        self._pieces.clear()


class _Named(msgspec.Struct):
    custom_id: str


class _Kept(msgspec.Struct):
    response: msgspec.Raw


_decode_named, _decode_kept = msgspec.json.Decoder(_Named).decode, msgspec.json.Decoder(_Kept).decode


def _custom_id(line: bytes) -> str:
    return _decode_named(line.strip().removeprefix(b"\xef\xbb\xbf")).custom_id


def _answer_line(custom_id: str, answer: msgspec.Raw) -> bytes:
    return _line(custom_id, _decode_kept(answer).response, None)


def _line(custom_id: str, response: Any, error: dict[str, str] | None) -> bytes:
    id = f"batch_req_{uuid.uuid4().hex}"
    return msgspec.json.encode({"id": id, "custom_id": custom_id, "response": response, "error": error}) + b"\n"


class _InOrder:
    """The records of a ledger, by the places of their rows in the input's only file."""

    def __init__(self, ledger: Ledger) -> None:
        self._records = self._all(ledger)
        self._next = next(self._records, None)

    def at(self, place: int) -> Record | None:
        """The record at a place behind those that were asked for before."""
        while self._next is not None and self._next[0] < place:
            self._next = next(self._records, None)
        return self._next[1] if self._next is not None and self._next[0] == place else None

    @staticmethod
    def _all(ledger: Ledger) -> Iterator[tuple[int, Record]]:
        for shard in ledger.plan.shards:
            for record in ledger.records(shard.number):
                yield shard.first + record.index, record


def _no_plan() -> Plan:
    raise BatchError("the batch has no plan: its ledger is damaged")
