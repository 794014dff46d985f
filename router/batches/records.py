"""The records of files and batches. Each has one owner; `FileRecord` and `BatchRecord` are written once.

Times are whole Unix seconds, as in OpenAI's API.
"""

import enum
from typing import Literal

import msgspec

_VERSION = 1

Purpose = Literal["batch", "batch_output"]


class Status(enum.StrEnum):
    """The states of a batch, by OpenAI's names."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`files/ID/record.json`: a file, whose bytes are in `files/ID/content`."""

    id: str
    tenant: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None = None
    version: int = _VERSION


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`openai-batches/ID/request.json`: what a tenant has asked for. Written by the router."""

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    output_kept_s: int | None = None
    version: int = _VERSION


class CancelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`openai-batches/ID/cancel.json`: the tenant wants no more of it. Written by the router, once."""

    cancelling_at: int
    version: int = _VERSION


class InputError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a batch, by OpenAI's names."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None  # of the input, from 1


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """`openai-batches/ID/state.json`: how far a batch is. Written by the program that works on it."""

    revision: int = 0  # rises with each change
    status: Status = Status.VALIDATING
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    cancelling_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None
    total: int = 0  # requests
    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of those; counted when the files are made
    model: str | None = None
    errors: tuple[InputError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    version: int = _VERSION

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.status in ENDED


VERSION = _VERSION
