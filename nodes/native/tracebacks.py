"""Tracebacks of defects, printed once for each kind: clients can repeat a request, and fill a disk with it."""

import sys
import traceback


class TracebackLog:
    """Prints to standard error. For one thread."""

    def __init__(self) -> None:
        self._known: set[tuple[type[BaseException], str, int]] = set()

    def write(self, title: str, error: BaseException) -> None:
        """Print `title` and the traceback, unless one with the same exception at the same place was printed."""
        frames = traceback.extract_tb(error.__traceback__)
        place = (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)
        kind = (type(error), *place)
        if kind in self._known:
            return
        self._known.add(kind)
        print(title, file=sys.stderr)
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
