"""Requests that fail by themselves: an exception that one request causes ends that request, and not the engine."""

from dataclasses import dataclass

from ....core.errors import EngineError
from ..grammar.errors import MatcherError
from ..tracebacks import TracebackLog
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
    """Prints the traceback of each kind of failure once."""

    def __init__(self) -> None:
        self._log = TracebackLog()

    def write(self, failure: Failure) -> None:
        """Print a failure with its traceback. What comes of a client's own grammar is told to that client only."""
        if not isinstance(failure.error, MatcherError):
            self._log.write(f"request {failure.request.id} has failed, the engine goes on:", failure.error)
