"""`slurminfer endpoint NAME`: where a deployment's router is, for programs; with --follow, at each change."""

import os
import select
import sys
import threading
from collections.abc import Callable

import msgspec

from .view import EndpointReader, EndpointView

POLL_S = 1.0
HEARTBEAT_S = 10.0  # an empty line, by which the reader knows that this end lives


class Output:
    """Lines on a descriptor, written by several threads.

    Not through sys.stdout, which would complain at the end of the process that nobody reads any more.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()

    def line(self, text: str) -> None:
        """Write one line. Raises BrokenPipeError."""
        data = (text + "\n").encode()
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


def print_once(reader: EndpointReader) -> None:
    """Print where the router is now."""
    Output(sys.stdout.fileno()).line(as_line(reader.read_once()))


def follow(reader: EndpointReader) -> None:
    """Print where the router is, and again when that changes, until standard input ends or nobody reads."""
    out = Output(sys.stdout.fileno())
    threading.Thread(target=_beat, args=(out,), daemon=True).start()
    try:
        announce_changes(reader.read, out.line, lambda: input_has_ended(sys.stdin.fileno(), POLL_S))
    except BrokenPipeError:
        return


def announce_changes(
    read: Callable[[], EndpointView], write: Callable[[str], None], is_over: Callable[[], bool]
) -> None:
    """Write each view that differs from the one before, until `is_over`, which waits between two looks."""
    last: EndpointView | None = None
    while True:
        view = read()
        if view != last:
            write(as_line(view))
            last = view
        if is_over():
            return


def as_line(view: EndpointView) -> str:
    """A view as JSON on one line."""
    return msgspec.json.encode(view).decode()


def input_has_ended(descriptor: int, timeout_s: float) -> bool:
    """Whether a descriptor has come to its end; waits up to `timeout_s`. What comes before the end is dropped."""
    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    return bool(readable) and not os.read(descriptor, 4096)


def _beat(out: Output) -> None:
    """Write empty lines, even while a filesystem stands still; end the process when nobody reads them any more."""
    pause = threading.Event()
    while not pause.wait(HEARTBEAT_S):
        try:
            out.line("")
        except OSError:
            os._exit(0)
