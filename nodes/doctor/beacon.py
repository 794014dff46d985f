"""A port that answers whoever connects with a proof of which task listens, and the time: to see who reaches whom."""

import hashlib
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import msgspec

_TIMEOUT_S = 3.0
_MOST_BYTES = 4096


class Answer(msgspec.Struct, frozen=True):
    """What a beacon says."""

    proof: str
    time: float  # Unix seconds, by the clock of its machine


@dataclass(frozen=True)
class Knock:
    """One attempt to reach a beacon."""

    is_open: bool
    seconds: float | None = None  # until it was connected
    clock_offset_s: float | None = None  # its clock minus ours
    clock_error_s: float | None = None  # most by which that may be wrong
    why_not: str = ""


def proof_of(secret: str, rank: int) -> str:
    """What the beacon of a task answers; it does not tell the secret."""
    return hashlib.sha256(f"{secret}/{rank}".encode()).hexdigest()


class Beacon:
    """Listens on a free port of all addresses until it is closed; for use in `with`.

    Everybody who can reach the node may connect; all they get is a number that means nothing to them, and the time.
    """

    def __init__(self, proof: str) -> None:
        self._proof = proof
        if socket.has_dualstack_ipv6():
            self._server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            self._server = socket.create_server(("", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Beacon":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._server.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            with suppress(OSError), connection:
                connection.settimeout(_TIMEOUT_S)
                connection.sendall(msgspec.json.encode(Answer(self._proof, time.time())))


def knock(address: str, port: int, proof: str, timeout_s: float = _TIMEOUT_S) -> Knock:
    """Connect to a beacon and see whether it is the right one: private addresses may be another machine's as well."""
    sent, began = time.time(), time.monotonic()
    try:
        with socket.create_connection((address, port), timeout_s) as connection:
            connected = time.monotonic()
            said = b""
            while len(said) < _MOST_BYTES and (piece := connection.recv(_MOST_BYTES)):
                said += piece
        took = time.monotonic() - began
        answer = msgspec.json.decode(said, type=Answer)
    except OSError as error:
        return Knock(False, why_not=error.strerror or str(error))
    except msgspec.MsgspecError:
        return Knock(False, why_not="another program answers there")
    if answer.proof != proof:
        return Knock(False, why_not="another node answers there")
    return Knock(True, connected - began, answer.time - (sent + took / 2), took / 2)
