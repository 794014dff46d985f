"""How the stream of a lost worker goes on at another one: what that is asked, and what becomes of its events.

Where an engine tells token ids (`TOKEN_IDS`) and takes them, it goes on from exactly these tokens: the native engine
always, reasoning and tool calls included, vLLM for completions. Otherwise the text so far is the beginning of the
answer: `continue_final_message` for chat, prompt and text for completions. Several choices go on at the native engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from .choices import are_finished, fields_of_choices, is_told_by_ids, number_of_choices
from .envelope import CHAT, COMPLETIONS, Envelope, is_given, whole, with_field, with_fields, with_usage
from .place import held_back, place_by_ids, place_by_text
from .stitcher import DONE, Stitcher, UsageOnly, counts_of, finish_event, usage_event
from .transcript import Place, Said, Story, Transcript

# By which field an engine is asked to tell token ids.
TOKEN_IDS: Mapping[str, str] = {"native": "stream_token_ids", "vllm": "return_token_ids"}
_START = Place(0, 0)
_DEFAULT_TOKENS = 16  # of /v1/completions
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Continuation:
    """The request that goes on, and what its events must pass; None: they are sent as they are."""

    body: bytes
    stitcher: Stitcher | UsageOnly | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer was complete but for these events."""

    events: bytes


@dataclass(frozen=True, slots=True)
class Impossible:
    """The stream must end with an error event."""

    reason: str


class _CannotResumeError(Exception):
    """Why a stream cannot be continued."""


def prepare(body: bytes, envelope: Envelope, engine: str) -> bytes:
    """The body of a streamed request as it is sent to a worker: it asks for token counts, and ids where it can."""
    if not envelope.streams or envelope.kind not in (CHAT, COMPLETIONS):
        return body
    body = with_usage(body, envelope)
    field = TOKEN_IDS.get(engine)
    if field is not None and getattr(envelope, field) is None:
        body = with_field(body, field, True, is_new=field.encode() not in body)
    return body


def plan(envelope: Envelope, body: bytes, transcript: Transcript, engine: str) -> Continuation | Finished | Impossible:
    """How to go on after `transcript` at a worker with `engine`. `body` is the client's own, without additions."""
    story = transcript.story()
    if not story.events and not transcript.overflowed:
        return Continuation(prepare(body, envelope, engine), None)
    try:
        return _go_on(envelope, body, transcript, engine)
    except _CannotResumeError as error:
        return Impossible(str(error))


def missing_end(envelope: Envelope, transcript: Transcript) -> bytes | None:
    """What a stream lacks that has ended cleanly, without [DONE], after all its answer; None: it was not all."""
    story = transcript.story()
    if envelope.kind not in (CHAT, COMPLETIONS) or transcript.overflowed or story.strange:
        return None
    count = number_of_choices(envelope)
    if not are_finished(story, count):
        return None
    if story.counted or not envelope.wants_usage or story.usage is None or count > 1:
        return DONE  # what is told before the end are the tokens of one choice
    return usage_event(story, story.usage) + DONE


def _go_on(envelope: Envelope, body: bytes, transcript: Transcript, engine: str) -> Continuation | Finished:
    story = transcript.story()
    if story.done:
        return Finished(b"")
    _require_plain(envelope, transcript, story)
    if not any(said.substance for said in story.choices.values()):
        stitcher = Stitcher(story, Said(), envelope, _START)
        return Continuation(prepare(body, envelope, engine), stitcher)
    if is_given(envelope.continue_token_ids):
        raise _CannotResumeError("an answer with continue_token_ids cannot be continued by another worker")
    count = number_of_choices(envelope)
    if count > 1 or len(story.choices) > 1:
        return _several(envelope, body, story, engine, count)
    said = next(iter(story.choices.values()))
    tokens = _count(said, story)
    if said.finish is not None:
        return _end(envelope, body, story, tokens, engine)
    limit = _limit(envelope)
    if limit is not None and tokens >= limit:
        return _end(envelope, body, story, tokens, engine, finish="length")
    held = held_back(envelope, story)
    if engine == "native" and said.token_ids and is_told_by_ids(story, said) and not held:
        body = with_fields(body, {"continue_token_ids": said.token_ids})
        return Continuation(prepare(body, envelope, engine), Stitcher(story, said, envelope, None))
    _require_text(envelope, said)
    fields, place = _by_ids(envelope, story, said, held) or _by_text(envelope, said, held)
    fields |= _reduced(envelope, place.tokens)
    return Continuation(prepare(with_fields(body, fields), envelope, engine), Stitcher(story, said, envelope, place))


def _several(envelope: Envelope, body: bytes, story: Story, engine: str, count: int) -> Continuation | Finished:
    """How an answer of so many choices goes on."""
    if are_finished(story, count) and (story.counted or not envelope.wants_usage):
        return Finished(DONE)
    continued = _each_choice(envelope, body, story, engine, count)
    if continued is None:
        raise _CannotResumeError("an answer of several choices cannot be continued by another worker")
    return continued


def _each_choice(envelope: Envelope, body: bytes, story: Story, engine: str, count: int) -> Continuation | None:
    """What the native engine goes on with by the tokens of so many choices; None for what it cannot."""
    fields = fields_of_choices(envelope, story, count) if engine == "native" else None
    if fields is None:
        return None
    return Continuation(prepare(with_fields(body, fields), envelope, engine), Stitcher(story, Said(), envelope, None))


def _end(
    envelope: Envelope, body: bytes, story: Story, tokens: int, engine: str, finish: str | None = None
) -> Continuation | Finished:
    """After the last token. The prompt's length, if it is to be told, only another worker knows.

    Slurminfer's engine counts all tokens without generating any. Others generate one.

    `finish`: the finish reason, if it has not been sent.
    """
    last = finish_event(envelope, story, finish) if finish else b""
    if story.counted or not envelope.wants_usage:
        return Finished(last + DONE)
    if story.usage is not None:
        return Finished(last + usage_event(story, story.usage) + DONE)
    if (prompt := story.prompt_tokens) is not None:
        return Finished(last + usage_event(story, counts_of(prompt, tokens)) + DONE)
    if not finish and (counting := _each_choice(envelope, body, story, engine, 1)) is not None:
        return counting
    fields: dict[str, Any] = {"min_tokens": msgspec.UNSET, **dict.fromkeys(_given_limits(envelope), 1)}
    return Continuation(prepare(with_fields(body, fields), envelope, engine), UsageOnly(story, tokens, last))


def _require_plain(envelope: Envelope, transcript: Transcript, story: Story) -> None:
    """Raise _CannotResumeError for a stream that is not understood."""
    if envelope.kind not in (CHAT, COMPLETIONS):
        raise _CannotResumeError("streams of this endpoint cannot be continued by another worker")
    if transcript.overflowed:
        raise _CannotResumeError("the answer is too long to be continued by another worker")
    if story.strange:
        raise _CannotResumeError("the stream has events of an unknown form")


def _count(said: Said, story: Story) -> int:
    """Tokens of the text so far: as told, else one for each event."""
    if said.token_ids and not said.without_ids:
        return said.told_ids
    counted = whole((story.usage or {}).get("completion_tokens"))
    return said.tokens if counted is None else max(counted - said.silent, 0)


def _limit(envelope: Envelope) -> int | None:
    return _DEFAULT_TOKENS if envelope.limit is None and envelope.kind == COMPLETIONS else envelope.limit


def _require_text(envelope: Envelope, said: Said) -> None:
    """Raise _CannotResumeError unless the text so far is all that a worker needs to go on."""
    for is_so, what in (
        (said.calls, "a tool call"),
        (said.reasoning, "reasoning"),
        (said.logprobs or envelope.wants_logprobs, "logprobs"),
        (envelope.echo is True, "echo"),
        (is_given(envelope.suffix), "suffix"),
        (envelope.constraint is not None, f"{envelope.constraint}"),
    ):
        if is_so:
            raise _CannotResumeError(f"an answer with {what} cannot be continued by another worker")


def _by_ids(envelope: Envelope, story: Story, said: Said, held: int) -> tuple[dict[str, Any], Place] | None:
    """The prompt of token ids by which a completion goes on, and where; None where that cannot be."""
    ids = story.prompt_ids or _prompt_ids(envelope)
    if envelope.kind == CHAT or ids is None or not said.token_ids or said.without_ids:
        return None
    place = place_by_ids(envelope, said, held)
    return None if place is None else ({"prompt": [*ids, *said.token_ids[: place.tokens]]}, place)


def _prompt_ids(envelope: Envelope) -> list[int] | None:
    prompt = msgspec.json.decode(envelope.prompt) if is_given(envelope.prompt) else None
    ids = prompt[0] if isinstance(prompt, list) and isinstance(prompt[0], list) else prompt
    return ids if isinstance(ids, list) and ids and isinstance(ids[0], int) else None


def _by_text(envelope: Envelope, said: Said, held: int) -> tuple[dict[str, Any], Place]:
    """The fields by which an engine takes the text so far for the beginning of its answer, and where that ends."""
    place = place_by_text(envelope, said, held)
    text = "".join(said.text)[: place.characters]
    if not text:
        return {}, place
    if envelope.kind == CHAT:
        messages = _continued_messages(envelope, text)
        return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}, place
    prompt = msgspec.json.decode(envelope.prompt) if is_given(envelope.prompt) else ""
    if isinstance(prompt, str):
        return {"prompt": prompt + text}, place
    if isinstance(prompt, list) and isinstance(prompt[0], str):
        return {"prompt": [prompt[0] + text]}, place
    raise _CannotResumeError("an answer to token ids cannot be continued by another worker: its ids are not known")


def _continued_messages(envelope: Envelope, text: str) -> list[Any]:
    messages: list[Any] = msgspec.json.decode(envelope.messages, type=list[Raw])
    last = msgspec.json.decode(messages[-1]) if messages and envelope.continue_final_message is True else {}
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return [*messages, {"role": "assistant", "content": text}]
    return [*messages[:-1], {**last, "content": _plain(last.get("content")) + text}]


def _plain(content: Any) -> str:
    """A content as one string."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) == len(texts):
        return "".join(strings)
    raise _CannotResumeError("a message with more than text cannot be continued by another worker")


def _reduced(envelope: Envelope, tokens: int) -> dict[str, Any]:
    """The bounds of the answer's length, less what has come."""
    limit, least = _limit(envelope), whole(envelope.min_tokens)
    fields: dict[str, Any] = {} if limit is None else dict.fromkeys(_given_limits(envelope), limit - tokens)
    return fields if least is None else {**fields, "min_tokens": max(least - tokens, 0)}


def _given_limits(envelope: Envelope) -> Sequence[str]:
    return [name for name in _LIMITS if getattr(envelope, name) is not None] or ["max_tokens"]
