"""How the tasks of a doctor's job and the command meet: files in the job's folder, which all of them see.

secret          by the command, before the job is submitted
listen-RANK     by each task: where it listens
report-RANK     by each task: what it has seen
done            by the command: the tasks may end
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from ...core.errors import RunDirectoryError
from ...core.files import encode_json, read_private, write_atomic
from ...core.site.doctor import NodeReport, Route
from ...core.site.machine import Network
from .beacon import Knock, knock, proof_of
from .network import from_here

SECRET, DONE = "secret", "done"
_POLL_S = 0.2
_AT_ONCE = 16
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Where the beacon of a task listens."""

    host: str
    port: int
    targets: dict[str, str]  # address to interface


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a task has seen."""

    node: NodeReport
    routes: tuple[Route, ...]  # from its node to those of the others


def listen_file(folder: Path, rank: int) -> Path:
    """Where a task says where it listens."""
    return folder / f"listen-{rank}.json"


def report_file(folder: Path, rank: int) -> Path:
    """Where a task says what it has seen."""
    return folder / f"report-{rank}.json"


def write(path: Path, value: msgspec.Struct) -> None:
    """Leave a value for the others. Raises RunDirectoryError."""
    write_atomic(path, encode_json(value))


def read_listening(folder: Path, rank: int) -> Listening | None:
    """Where a task listens; None as long as it has not said so. Raises RunDirectoryError."""
    return _read(listen_file(folder, rank), Listening)


def read_report(folder: Path, rank: int) -> TaskReport | None:
    """What a task has seen; None as long as it has not said so. Raises RunDirectoryError."""
    return _read(report_file(folder, rank), TaskReport)


def reach(source: str, own: Network, target: Listening, rank: int, secret: str) -> list[tuple[Route, Knock]]:
    """Try all addresses of a task from this machine, at the same time."""
    tried = [(address, name) for address, name in target.targets.items()]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        knocks = list(threads.map(lambda entry: _best(entry[0], own, target, proof_of(secret, rank)), tried))
    return [
        (
            Route(
                source=source,
                target=target.host,
                address=address,
                interface=interface,
                is_open=found.is_open,
                seconds=found.seconds,
                why_not=found.why_not,
            ),
            found,
        )
        for (address, interface), found in zip(tried, knocks, strict=True)
    ]


def wait_until(is_there: Callable[[], bool], timeout_s: float) -> bool:
    """Look again and again, for files that others write; whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not is_there():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _best(address: str, own: Network, target: Listening, proof: str) -> Knock:
    """The first of the ways to an address that leads there, else the last."""
    found = Knock(False, why_not="no interface here has link-local addresses")
    for one in from_here(address, own):
        found = knock(one, target.port, proof)
        if found.is_open:
            break
    return found


def _read(path: Path, kind: type[_Kind]) -> _Kind | None:
    text = read_private(path)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise RunDirectoryError(f"{path} is no file of the doctor: {error}") from error
