"""What a batch writes for each line: results, in the form of the line that asked, and errors."""

import uuid
from typing import Any

import msgspec

from .inputs.request import BatchRequest, Id

# How every result's line begins: what a driver that was killed left of one can be told from anybody else's text.
RESULT_START = b'{"id":'


class MalformedAnswerError(Exception):
    """A 200 that is not what OpenAI's API says."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Used(msgspec.Struct):
    usage: _Usage | None = None


class _Written(msgspec.Struct):
    id: Id
    custom_id: Id | None = None
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    response: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def make_result(request: BatchRequest, body: bytes, request_id: str | None) -> tuple[bytes, int]:
    """The line for a successful answer, and the tokens that it cost to generate. Raises MalformedAnswerError."""
    try:
        line = _whole(request, body, request_id) if request.whole_answer else _plain(request, body)
        used = msgspec.json.decode(body, type=_Used).usage
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"not an OpenAI answer: {error}") from error
    return msgspec.json.encode(line) + b"\n", (used and used.completion_tokens) or 0


def make_error(line: int, id: Id | None, status: int | None, message: str) -> bytes:
    """The line for a line that got no result; `status` is HTTP's, None where it was not even sent."""
    return msgspec.json.encode({"line": line, "id": id, "status": status, "error": message}) + b"\n"


def id_of(line: bytes) -> Id:
    """The id that a written result belongs to. Raises msgspec.DecodeError where it is not a result."""
    written = msgspec.json.decode(line, type=_Written)
    if written.text is msgspec.UNSET and written.response is msgspec.UNSET:
        raise msgspec.ValidationError("neither a text nor a response")
    return written.id if written.custom_id is None else written.custom_id


def _plain(request: BatchRequest, body: bytes) -> dict[str, Any]:
    answer = msgspec.json.decode(body, type=_Completion)
    if not answer.choices:
        raise MalformedAnswerError("not an OpenAI answer: no choices")
    choice = answer.choices[0]
    text = choice.message.content if choice.message else choice.text
    return {
        "id": request.id,
        "text": text,
        "finish_reason": choice.finish_reason,
        "usage": answer.usage,
        "model": answer.model,
    }


def _whole(request: BatchRequest, body: bytes, request_id: str | None) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/batch/request-output"""
    answer = msgspec.json.decode(body, type=dict[str, Any])
    response = {"status_code": 200, "request_id": request_id or answer.get("id"), "body": answer}
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": request.id, "response": response, "error": None}
