"""What has been sent of a stream, kept as it came and read only when its worker is lost."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .envelope import whole
from .events import payloads

MOST_BYTES = 64 * 2**20
_BLOCK_BYTES = 32 * 2**10
_END = b"\n\n"
_OURS = "slurminfer-"  # the beginning of our own engine's fingerprint
_NAMES = ("id", "object", "created", "model", "system_fingerprint")  # the same in all events of a stream


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an answer: so many characters of its text, which are so many tokens."""

    characters: int
    tokens: int


@dataclass(frozen=True, slots=True)
class End(Place):
    """The end of an event with text."""

    is_one: bool  # whether it had one token, as far as is known


@dataclass(slots=True)
class Said:
    """What one choice has said so far."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    told_ids: int = 0  # how many of them belong to the text
    tokens: int = 0  # that belong to the text: the events with a token, where nothing better is known
    silent: int = 0  # tokens since then, without text: half a character, or held back for a stop string
    without_ids: int = 0  # events with text, reasoning or calls but without token ids
    ends: list[End] = field(default_factory=list)  # of all events with text since `base`
    sent: int = 0  # characters when that was
    base: Place = Place(0, 0)  # where the last worker has taken the answer up
    role: bool = False
    reasoning: bool = False
    calls: bool = False  # of tools
    logprobs: bool = False
    finish: str | None = None

    def take_up(self, place: Place) -> None:
        """Forget the tokens behind a place: another worker generates them again."""
        self.ends, self.base, self.sent = [], place, len("".join(self.text))
        self.silent, self.tokens = 0, place.tokens
        del self.token_ids[place.tokens :]
        self.told_ids = len(self.token_ids)

    @property
    def substance(self) -> bool:
        """Whether anything has come that a second answer might contradict."""
        return bool(any(self.text) or self.token_ids or self.reasoning or self.calls or self.finish)


@dataclass(slots=True)
class Story:
    """All that the events have told."""

    names: dict[str, Any] = field(default_factory=dict)
    choices: dict[int, Said] = field(default_factory=dict)
    prompt_ids: list[int] | None = None  # vLLM tells them
    usage: dict[str, Any] | None = None  # the last token counts
    counted: bool = False  # by the event that comes after the last of the choices
    events: int = 0
    done: bool = False
    strange: bool = False  # an event that is not of OpenAI's completions or chat

    @property
    def is_of_vllm(self) -> bool:
        """Whether vLLM has begun it. It tells the ids of prompts; slurminfer's engine too, where the client asks."""
        return self.prompt_ids is not None and not str(self.names.get("system_fingerprint")).startswith(_OURS)

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, if that was told."""
        if self.prompt_ids is not None:
            return len(self.prompt_ids)
        return whole((self.usage or {}).get("prompt_tokens"))


class Transcript:
    """The whole events that were sent to one client, before anything was taken out of them.

    Events are much alike: compressed, a long answer takes a twentieth of its size.
    """

    __slots__ = ("_blocks", "_chunks", "_most_bytes", "_pending", "_story", "events", "overflowed", "size")

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._story = Story()  # of what is in neither of the two:
        self._blocks: list[bytes] = []  # compressed
        self._chunks: list[bytes] = []
        self._pending = 0  # bytes of the chunks
        self._most_bytes, self.size = most_bytes, 0
        self.events = 0  # nearly: each ends with a blank line
        self.overflowed = False  # too long to be kept: the stream cannot be continued

    def add(self, data: bytes) -> None:
        """Keep whole events."""
        self.events += data.count(_END)
        if self.overflowed:
            return
        size = len(data)
        self.size += size
        self._pending += size
        self._chunks.append(data)
        if self._pending > _BLOCK_BYTES:
            self._pack()

    def story(self) -> Story:
        """What has been said up to now."""
        blocks = [*map(zlib.decompress, self._blocks), *self._chunks]
        self._blocks, self._chunks, self._pending = [], [], 0
        for payload in payloads(b"".join(blocks)):
            _tell(self._story, payload)
        return self._story

    def _pack(self) -> None:
        if self.size > self._most_bytes:
            self.overflowed = True
            self._blocks = []
        else:
            self._blocks.append(zlib.compress(b"".join(self._chunks), 1))
        self._chunks, self._pending = [], 0


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: Any = None
    finish_reason: str | None = None


class Event(msgspec.Struct):
    """An event of completions or chat."""

    choices: list[_Choice]
    usage: dict[str, Any] | None = None
    prompt_token_ids: list[int] | None = None
    id: Any = msgspec.UNSET
    object: Any = msgspec.UNSET
    created: Any = msgspec.UNSET
    model: Any = msgspec.UNSET
    system_fingerprint: Any = msgspec.UNSET


_decode = msgspec.json.Decoder(Event).decode
_NOTHING = _Delta()


def read_event(payload: bytes) -> Event | None:
    """The data of an event; None for what is of no known form."""
    try:
        return _decode(payload)
    except (ValueError, RecursionError):
        return None


def _tell(story: Story, payload: bytes) -> None:
    story.events += 1
    if payload.strip() == b"[DONE]":
        story.done = True
        return
    event = read_event(payload)
    if event is None:
        story.strange = True
        return
    for name in _NAMES:
        value = getattr(event, name)
        if value is not msgspec.UNSET:
            story.names.setdefault(name, value)
    if event.usage is not None:
        story.usage, story.counted = event.usage, not event.choices
    counted = whole((event.usage or {}).get("completion_tokens"))
    for choice in event.choices:
        if story.prompt_ids is None:
            story.prompt_ids = event.prompt_token_ids or choice.prompt_token_ids
        _tell_choice(story.choices.setdefault(choice.index, Said()), choice, counted)


def _tell_choice(said: Said, choice: _Choice, counted: int | None) -> None:
    delta, ids = choice.delta or _NOTHING, choice.token_ids
    text = choice.text or delta.content or ""
    thought = bool(delta.reasoning_content or delta.reasoning)
    called = bool(delta.tool_calls or delta.function_call)
    said.text.append(text)
    if ids is not None:
        said.token_ids += ids
    elif text or thought or called:
        said.without_ids += 1
    said.silent += bool(text or ids or not (delta.role or choice.finish_reason))
    if text or choice.finish_reason:
        said.tokens, said.silent, said.told_ids = said.tokens + said.silent, 0, len(said.token_ids)
    if text:
        said.ends.append(_end_of(said, ids, counted))
    said.role |= delta.role is not None
    said.reasoning |= thought
    said.calls |= called
    said.logprobs |= bool(choice.logprobs)
    said.finish = choice.finish_reason or said.finish


def _end_of(said: Said, ids: list[int] | None, counted: int | None) -> End:
    """Where an event with text ends. Its tokens are as told, else one for each event."""
    characters = (said.ends[-1].characters if said.ends else said.sent) + len(said.text[-1])
    if said.without_ids:
        return End(characters, said.tokens if counted is None else counted, is_one=True)
    return End(characters, len(said.token_ids), is_one=len(ids or ()) == 1)
