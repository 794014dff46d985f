"""From an engine's replies to what the ledger keeps of a row: its answer, and the tokens that it cost.

The answer of a row, as JSON, has one of two forms:

    {"text", "finish_reason", "usage", and what else the engine said: tool_calls, refusal, logprobs ...}
    {"response": {"status_code", "request_id", "body"}}      of OpenAI's batch lines, and of paths that generate nothing

In the first, with several choices or turns, all but `usage` are lists: one item for each choice, or for each turn.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from ..inputs.request import GENERATES, BatchRequest
from ..ledger.record import Record

_Count = Annotated[int, msgspec.Meta(ge=0)]
_MARGIN = 400  # levels of nesting that whoever reads an answer later may already be in, or add
_SAID_BESIDE = ("tool_calls", "function_call", "refusal", "audio")  # any of these is an answer, without text too
_EXPLAINED = ("reasoning_content", "reasoning", "annotations")  # these alone are none
BESIDE = (*_SAID_BESIDE, *_EXPLAINED, "logprobs")  # what an answer may have besides text and finish_reason


class MalformedAnswerError(Exception):
    """A 200 that is not what OpenAI's API says. The next one may be right."""


class NoTextError(Exception):
    """A 200 as OpenAI's API says, without anything that could be written as the row's answer."""


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    index: int | None = None

    @property
    def content(self) -> str | None:
        """The text, if there is any."""
        return self.message.content if self.message is not None else self.text

    def said(self, name: str) -> Any:
        """What it has of `BESIDE`; None: nothing."""
        holder = self if name == "logprobs" else self.message
        return (holder is not None and getattr(holder, name)) or None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    input_tokens: _Count | None = None  # these three: /v1/responses, and /v1/messages without details
    output_tokens: _Count | None = None
    input_tokens_details: _PromptDetails | None = None
    output_tokens_details: _CompletionDetails | None = None
    cache_read_input_tokens: _Count | None = None  # /v1/messages, whose input_tokens leave them out
    cache_creation_input_tokens: _Count | None = None

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tokens of the prompt, those of it that were cached, and tokens generated."""
        read, created = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        details = self.prompt_tokens_details or self.input_tokens_details
        cached = (details.cached_tokens if details else None) or read
        prompt = self.prompt_tokens or (self.input_tokens or 0) + read + created
        return prompt, cached, self.completion_tokens or self.output_tokens or 0

    @property
    def reasoning(self) -> int:
        """Those of the generated tokens that are reasoning."""
        details = self.completion_tokens_details or self.output_tokens_details
        return (details.reasoning_tokens if details else None) or 0


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class Generated(msgspec.Struct):
    """What rows of either form have in columns. The first of the two forms, without what is said besides."""

    text: str | list[str | None] | None
    finish_reason: str | list[str | None] | None
    usage: dict[str, int] | None


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def make_record(
    request: BatchRequest, replies: Sequence[bytes], request_id: str | None = None, *, samples: int = 1
) -> Record:
    """The record of a row that was answered.

    Args:
        request: the row.
        replies: bodies of the replies with status 200: one, and one more for each further turn.
        request_id: of the last reply, as its headers say.
        samples: answers that were asked for, where the row does not say it itself.

    Raises MalformedAnswerError, and NoTextError for an answer that says nothing.
    """
    decoded = [_decoded(body) for body in replies]
    if request.whole_answer or request.path not in GENERATES:
        answer = _whole(request, replies[-1], decoded[-1], request_id)
    else:
        answer = _plain(request, decoded, samples)
        if not _is_flat(answer):
            _check_depth(answer)
    prompt, cached, completion = _counts(decoded)
    return Record(
        index=request.index,
        key=request.key,
        answer=msgspec.Raw(answer),
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        reasoning_tokens=sum(reply.usage.reasoning for reply in decoded if reply.usage is not None),
    )


def content_of(body: bytes) -> str:
    """The text of a reply, to which a further turn may follow. Raises MalformedAnswerError, NoTextError."""
    choice = _choices(_decoded(body))[0]
    if choice.content is None:
        raise NoTextError(f"the answer has no text that a turn could follow (finish_reason {choice.finish_reason})")
    return choice.content


def generated_of(body: bytes | msgspec.Raw) -> Generated:
    """What a whole reply that was kept says, for outputs with columns; nothing where it has no choices."""
    reply = _decode_reply(body)
    choices, usage = _in_order(reply.choices or []), _usage([reply])
    if len(choices) == 1:
        return Generated(choices[0].content, choices[0].finish_reason, usage)
    if not choices:
        return Generated(None, None, usage)
    return Generated([choice.content for choice in choices], [choice.finish_reason for choice in choices], usage)


def _decoded(body: bytes) -> _Reply:
    try:
        reply = _decode_reply(body)
    except RecursionError as error:
        raise MalformedAnswerError("not an OpenAI answer: nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedAnswerError(f"not an OpenAI answer: {error}") from error
    if reply.error is not None:
        raise MalformedAnswerError(f"HTTP 200 with an error: {_shortened(reply.error)}")
    return reply


def _choices(reply: _Reply) -> list[_Choice]:
    if not reply.choices:
        raise MalformedAnswerError("not an OpenAI answer: no choices")
    for choice in reply.choices:
        if choice.message is None and choice.text is None:
            raise MalformedAnswerError("not an OpenAI answer: a choice without text or message")
        if choice.content is None and not any(choice.said(name) for name in _SAID_BESIDE):
            raise NoTextError(f"the answer has no text (finish_reason {choice.finish_reason})")
    return _in_order(reply.choices)


def _in_order(choices: list[_Choice]) -> list[_Choice]:
    """Engines may give them as they end."""
    if len(choices) > 1 and all(choice.index is not None for choice in choices):
        choices.sort(key=lambda choice: choice.index or 0)
    return choices


def _plain(request: BatchRequest, replies: Sequence[_Reply], samples: int) -> bytes:
    turns = [_choices(reply) for reply in replies]
    choices = turns[0] if len(turns) == 1 else [choices[0] for choices in turns]
    wanted = request.body.get("n") or 1 if "n" in request.body else samples
    if len(turns) == 1 and len(choices) < wanted:
        raise MalformedAnswerError(f"{len(choices)} choices where {wanted} were asked for")
    usage = _usage(replies)
    if len(choices) > 1 or wanted != 1:
        listed = Generated([choice.content for choice in choices], [choice.finish_reason for choice in choices], usage)
        return _encoded(listed, _beside(choices, False))
    choice = choices[0]
    return _encoded(Generated(choice.content, choice.finish_reason, usage), _beside(choices, True))


def _beside(choices: Sequence[_Choice], single: bool) -> dict[str, Any]:
    """What the choices have of `BESIDE`, each only where one of them has it."""
    found = {}
    for name in BESIDE:
        values = [choice.said(name) for choice in choices]
        if any(value is not None for value in values):
            found[name] = values[0] if single else values
    return found


def _encoded(answer: Generated, beside: dict[str, Any]) -> bytes:
    try:
        return _encode({**msgspec.structs.asdict(answer), **beside} if beside else answer)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswerError(f"an answer that cannot be written: {error}") from error


def _whole(request: BatchRequest, body: bytes, reply: _Reply, request_id: str | None) -> bytes:
    """Decodes the body in full: what is kept is one line of JSON that every reader can read."""
    if request.path in GENERATES:
        _choices(reply)
    if not _is_flat(body):
        _check_depth(body)
    try:
        whole = _decode_any(body)
        response = {"status_code": 200, "request_id": request_id or whole.get("id"), "body": whole}
        return _encode({"response": response})
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedAnswerError(f"an answer that cannot be written: {error}") from error


def _is_flat(body: bytes) -> bool:
    return body.count(b"[") + body.count(b"{") < _MARGIN


def _check_depth(body: bytes) -> None:
    """Later runs read an answer from within other calls, and as a part of what is written around it."""
    try:
        _decode_any(b"[" * _MARGIN + body + b"]" * _MARGIN)
    except RecursionError as error:
        raise MalformedAnswerError("an answer that cannot be written: nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedAnswerError(f"an answer that cannot be written: {error}") from error


def _counts(replies: Sequence[_Reply]) -> tuple[int, int, int]:
    if len(replies) == 1:
        usage = replies[0].usage
        return usage.counts if usage is not None else (0, 0, 0)
    counts = [reply.usage.counts for reply in replies if reply.usage is not None]
    return sum(found[0] for found in counts), sum(found[1] for found in counts), sum(found[2] for found in counts)


def _usage(replies: Sequence[_Reply]) -> dict[str, int] | None:
    """Of all replies together; None where none says anything."""
    if all(reply.usage is None for reply in replies):
        return None
    prompt, cached, completion = _counts(replies)
    return {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion}


def _shortened(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or error)[:500]
