"""What a batch writes for each line: results, in the form of the line that asked, and errors."""

import uuid
from typing import Annotated, Any, TypeVar

import msgspec

from ..inputs.request import GENERATES, BatchRequest, Id

# How every result's line begins: what a driver that was killed left of one can be told from anybody else's text.
RESULT_START = b'{"id":'

_Shape = TypeVar("_Shape")


class MalformedAnswerError(Exception):
    """A 200 that is not what OpenAI's API says. The next one may be right."""


class NoTextError(Exception):
    """A 200 as OpenAI's API says, without anything that could be written as the line's result."""


class NotAResultError(Exception):
    """A line that no batch has written."""


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None

    @property
    def content(self) -> str | None:
        return self.message.content if self.message else self.text

    @property
    def beside(self) -> dict[str, Any]:
        """What a message says without content, by its name in the API."""
        said = msgspec.structs.asdict(self.message) if self.message else {}
        return {name: value for name, value in said.items() if value and name != "content"}


class _Answer(msgspec.Struct):
    error: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Usage(msgspec.Struct):
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Used(msgspec.Struct):
    usage: _Usage | None = None


class _Written(msgspec.Struct):
    id: Id
    custom_id: Id | None = None
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    response: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def make_result(request: BatchRequest, body: bytes, request_id: str | None) -> tuple[bytes, int]:
    """The line for a successful answer, and the tokens that it cost to generate.

    Raises MalformedAnswerError, and NoTextError for an answer that says nothing.
    """
    error = _decode(body, _Answer).error
    if error is not None:
        raise MalformedAnswerError(f"HTTP 200 with an error: {_shortened(error)}")
    line = _whole(request, body, request_id) if request.whole_answer else _plain(request, body)
    used = _decode(body, _Used).usage
    try:
        encoded = msgspec.json.encode(line) + b"\n"
        id_of(encoded)  # nested one level deeper than the answer: the next run must be able to read it
    except (ValueError, RecursionError, NotAResultError) as error:
        raise MalformedAnswerError(f"an answer that cannot be written: {error}") from error
    return encoded, (used and used.completion_tokens) or 0


def make_error(line: int, id: Id | None, status: int | None, message: str) -> bytes:
    """The line for a line that got no result; `status` is HTTP's, None where it was not even sent."""
    return msgspec.json.encode({"line": line, "id": id, "status": status, "error": message}) + b"\n"


def id_of(line: bytes) -> Id:
    """The id that a written result belongs to. Raises NotAResultError."""
    try:
        written = msgspec.json.decode(line, type=_Written)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAResultError(str(error)) from error
    if written.text is msgspec.UNSET and written.response is msgspec.UNSET:
        raise NotAResultError("neither a text nor a response")
    return written.id if written.custom_id is None else written.custom_id


def _decode(body: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except RecursionError as error:
        raise MalformedAnswerError("not an OpenAI answer: nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedAnswerError(f"not an OpenAI answer: {error}") from error


def _choices(body: bytes) -> _Completion:
    answer = _decode(body, _Completion)
    if not answer.choices:
        raise MalformedAnswerError("not an OpenAI answer: no choices")
    for choice in answer.choices:
        if choice.message is None and choice.text is None:
            raise MalformedAnswerError("not an OpenAI answer: a choice without text or message")
        if choice.content is None and not choice.beside:
            raise NoTextError(f"the answer has no text (finish_reason {choice.finish_reason})")
    return answer


def _plain(request: BatchRequest, body: bytes) -> dict[str, Any]:
    answer = _choices(body)
    choice = answer.choices[0]
    return {
        "id": request.id,
        "text": choice.content,
        **choice.beside,
        "finish_reason": choice.finish_reason,
        "usage": answer.usage,
        "model": answer.model,
    }


def _whole(request: BatchRequest, body: bytes, request_id: str | None) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/batch/request-output"""
    if request.path in GENERATES:
        _choices(body)
    answer = _decode(body, dict[str, Any])
    response = {"status_code": 200, "request_id": request_id or answer.get("id"), "body": answer}
    return {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": request.id, "response": response, "error": None}


def _shortened(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or error)[:500]
