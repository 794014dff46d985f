"""Messages of ranks to rank 0, one JSON object a line, and the proof that a caller is a rank."""

import hmac
import queue
from typing import TypeAlias

import msgspec

MAX_LINE_BYTES = 4096  # bytes of a line
WELCOME = b"welcome\n"  # rank 0's answer to a Hello; any other says why not


class Hello(msgspec.Struct, frozen=True, tag="hello", forbid_unknown_fields=True):
    """The first message of a connection: which rank it is, and the proof that it knows the deployment's key."""

    rank: int
    host: str
    proof: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The rank has loaded its weights: from now on nothing holds the GIL for seconds."""


class Gone(msgspec.Struct, frozen=True, tag="gone"):
    """A rank has failed, as it reports itself, or as its parent process does."""

    rank: int
    host: str
    reason: str  # empty: nobody has said

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} is gone: {self.reason or 'it has ended without a word'}"


ChildExits: TypeAlias = "queue.SimpleQueue[Gone]"  # of this process's children
_hello: msgspec.json.Decoder[Hello] = msgspec.json.Decoder(Hello)
_message: msgspec.json.Decoder[Loaded | Gone] = msgspec.json.Decoder(Loaded | Gone)


def encode_line(message: Hello | Loaded | Gone) -> bytes:
    """Encode a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


def decode_hello(said: bytes) -> Hello | None:
    """Decode a Hello; None for anything else."""
    try:
        return _hello.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_message(said: bytes) -> Loaded | Gone | None:
    """Decode a Loaded or Gone; None for anything else."""
    try:
        return _message.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def make_proof(key: str, nonce: str, rank: int) -> str:
    """Return the hex HMAC-SHA256, by the deployment's key, of one rank and the nonce that rank 0 has drawn."""
    return hmac.new(key.encode(), f"{nonce} {rank}".encode(), "sha256").hexdigest()
