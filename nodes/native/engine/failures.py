"""Requests that fail by themselves: an exception that one request causes ends that request, and not the engine."""

import sys
import traceback
from dataclasses import dataclass

from ....core.errors import EngineError
from ..grammar.errors import MatcherError
from .request import Request


class StepError(EngineError):
    """A model could not compute a step. It belongs to no single request, and ends the engine."""


class RequestFailedError(EngineError):
    """The engine failed on one request and goes on with the others."""


class StructureError(RequestFailedError):
    """The answer cannot go on by the request's own grammar."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that an exception has ended."""

    request: Request
    error: Exception

    @property
    def told(self) -> RequestFailedError:
        """What a client is told: of a grammar all, as it is the client's own."""
        if isinstance(self.error, MatcherError):
            return StructureError(f"the answer's structure: {self.error}")
        return RequestFailedError(f"the engine failed on this request: {type(self.error).__name__}")


class FailureLog:
    """Prints the traceback of each kind of failure once: clients can repeat a request, and fill a disk with it."""

    def __init__(self) -> None:
        self._known: set[tuple[type[Exception], str, int]] = set()

    def write(self, failure: Failure) -> None:
        """Print a failure with its traceback, unless one with the same exception at the same place was printed.

        What comes of a client's own grammar is told to that client only.
        """
        if isinstance(failure.error, MatcherError):
            return
        frames = traceback.extract_tb(failure.error.__traceback__)
        place = (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)
        kind = (type(failure.error), *place)
        if kind in self._known:
            return
        self._known.add(kind)
        print(f"request {failure.request.id} has failed, the engine goes on:", file=sys.stderr)
        traceback.print_exception(failure.error, file=sys.stderr)
        sys.stderr.flush()
