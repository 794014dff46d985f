"""Messages between rank 0 and the other ranks, in msgpack, each of a type of its own.

Nothing in them is a path, a command or code.
"""

import queue
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

MAX_BYTES_TO_RANK_0 = 4 << 20
MAX_BYTES_TO_RANK = 64 << 20  # a step of all that fits into a KV cache is some MiB
_MAX_KEY, _MAX_VALUE, _MAX_KEYS, _MAX_HOST, MAX_REASON = 1024, 1 << 20, 4096, 255, 2000

Key: TypeAlias = Annotated[str, Meta(max_length=_MAX_KEY)]
Value: TypeAlias = Annotated[bytes, Meta(max_length=_MAX_VALUE)]
SomeKeys: TypeAlias = Annotated[list[Key], Meta(max_length=_MAX_KEYS)]


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message of a rank: where it runs."""

    host: Annotated[str, Meta(max_length=_MAX_HOST)]


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """The heartbeat of a rank."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The rank has loaded its weights: from now on nothing holds the GIL for seconds."""


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A rank has failed, as it reports itself, or as its parent process does."""

    rank: int
    host: Annotated[str, Meta(max_length=_MAX_HOST)]
    reason: Annotated[str, Meta(max_length=MAX_REASON)]  # empty: unknown

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} is gone: {self.reason or 'no reason is known'}"


class Set(msgspec.Struct, frozen=True, tag="set"):
    """Set keys of the store."""

    id: int
    items: Annotated[dict[Key, Value], Meta(max_length=_MAX_KEYS)]


class Get(msgspec.Struct, frozen=True, tag="get"):
    """Wait until all keys are there, and return their values in this order, or none of them."""

    id: int
    keys: SomeKeys
    timeout_s: float
    with_values: bool = True


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Whether all keys are there: 1 or 0."""

    id: int
    keys: SomeKeys


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Add to the number that a key has, 0 where it is absent, and return the sum."""

    id: int
    key: Key
    number: int


class Append(msgspec.Struct, frozen=True, tag="append"):
    """Append to the value of a key."""

    id: int
    key: Key
    value: Value


class CompareSet(msgspec.Struct, frozen=True, tag="compare_set"):
    """Set a key if its value is the expected one (empty: or if it is absent); return what it is then."""

    id: int
    key: Key
    expected: Value
    desired: Value


class Delete(msgspec.Struct, frozen=True, tag="delete"):
    """Delete a key; return 1 if it was there, else 0."""

    id: int
    key: Key


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Return how many keys there are."""

    id: int


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """What came of a request to the store."""

    id: int  # the request's
    values: list[bytes] = []
    number: int = 0
    error: str = ""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Rank 0 takes this rank."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Rank 0 does not take this rank, and closes."""

    reason: str


class Step(msgspec.Struct, frozen=True, tag="step"):
    """What rank 0 wants computed, as chunk_codec.py encodes it."""

    content: bytes


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The engine ends, without failure."""


Request: TypeAlias = Set | Get | Check | Add | Append | CompareSet | Delete | Count
ToRank0: TypeAlias = Hello | Alive | Loaded | Gone | Request
ToRank: TypeAlias = Answer | Welcome | Refused | Step | Goodbye
ChildExits: TypeAlias = "queue.SimpleQueue[Gone]"  # of this process's children

_to_rank_0: msgspec.msgpack.Decoder[ToRank0] = msgspec.msgpack.Decoder(ToRank0)
_to_rank: msgspec.msgpack.Decoder[ToRank] = msgspec.msgpack.Decoder(ToRank)
encode = msgspec.msgpack.Encoder().encode


def decode_to_rank_0(message: bytes) -> ToRank0:
    """Decode a message of a rank. Raises msgspec.DecodeError."""
    return _to_rank_0.decode(message)


def decode_to_rank(message: bytes) -> ToRank:
    """Decode a message of rank 0. Raises msgspec.DecodeError."""
    return _to_rank.decode(message)
