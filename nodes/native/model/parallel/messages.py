"""What ranks say on their lifelines, a line each, and how they make_proof that they are ranks."""

import hmac
import queue
from typing import TypeAlias

import msgspec

MAX_LINE_BYTES = 4096  # bytes of a line
WELCOME = b"welcome\n"  # rank 0's answer to a Hello; any other says why not


class Hello(msgspec.Struct, frozen=True, tag="hello", forbid_unknown_fields=True):
    """Who calls. Nothing else is heard before it."""

    rank: int
    host: str
    proof: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """From now on, nothing holds Python's lock for seconds."""


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A rank ends or has ended, as it says itself or as the process says that has started it."""

    rank: int
    host: str
    reason: str  # empty: nobody has said

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} is gone: {self.reason or 'it has ended without a word'}"


ChildExits: TypeAlias = "queue.SimpleQueue[Gone]"  # of this process's children
_hello: msgspec.json.Decoder[Hello] = msgspec.json.Decoder(Hello)
_word: msgspec.json.Decoder[Loaded | Gone] = msgspec.json.Decoder(Loaded | Gone)


def encode_line(word: Hello | Loaded | Gone) -> bytes:
    """A word as it is sent."""
    return msgspec.json.encode(word) + b"\n"


def decode_hello(said: bytes) -> Hello | None:
    """None: it is something else."""
    try:
        return _hello.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_message(said: bytes) -> Loaded | Gone | None:
    """None: it is something else."""
    try:
        return _word.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def make_proof(key: str, nonce: str, rank: int) -> str:
    """What nobody can say who does not know the deployment's key, for one rank of one meeting."""
    return hmac.new(key.encode(), f"{nonce} {rank}".encode(), "sha256").hexdigest()
