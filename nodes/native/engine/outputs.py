"""What the engine has generated for one client and the client has not read yet: a bounded buffer."""

import asyncio
import time
from collections.abc import Callable, Sequence

from ....core.errors import EngineError
from .request import Output, Request, SamplingParams

# A client that is further behind makes its requests wait. One unit is a token or an alternative of `logprobs`, which
# both take about 200 bytes.
_MOST_UNITS = 4096
_FEWEST_STEPS = 4  # that fit into the buffer, however many choices and alternatives were asked for

SetPaused = Callable[[Sequence[str], bool], None]


class Outputs:
    """The outputs of the requests that were submitted together, in the order in which they were generated.

    Only for the event loop. When the buffer is full, the requests are paused; they are resumed when it is half empty.
    """

    def __init__(self, requests: Sequence[Request], set_paused: SetPaused, *, at_once: bool = True) -> None:
        """
        Args:
            requests: that were submitted.
            set_paused: is told which requests to pause, or to resume.
            at_once: whether each token can be got as soon as it is there. Else the reader is woken when a request has
                ended, or the buffer is half full: for many answers that nobody reads before their end, that is faster.
        """
        self._open = dict.fromkeys(request.id for request in requests)
        self._set_paused = set_paused
        self._most = max(_MOST_UNITS, _FEWEST_STEPS * sum(_units(request.params) for request in requests))
        self._at_once = at_once
        self._held: list[tuple[Output, float]] = []
        self._queue: asyncio.Queue[tuple[Output, float] | EngineError] = asyncio.Queue()
        self._units = 0
        self._paused = False

    def put(self, output: Output, at: float | None = None) -> None:
        """Add an output of the engine, computed `at` this time of time.monotonic(); by default now."""
        self._held.append((output, time.monotonic() if at is None else at))
        self._units += _units(output.request.params)
        if output.finish:
            del self._open[output.request.id]
        if self._at_once or output.finish or self._units >= self._most // 2:
            self._release()
        if self._units > self._most and self._open and not self._paused:
            self._pause(True)

    def fail(self, error: EngineError) -> None:
        """Let `get` raise `error` when all outputs before it are read."""
        self._release()
        self._queue.put_nowait(error)

    async def get(self) -> tuple[Output, float]:
        """The next output, and when it was computed.

        Raises EngineError if the engine has ended, RequestFailedError if it failed on a request.
        """
        found = await self._queue.get()
        if isinstance(found, EngineError):
            raise found
        self._units -= _units(found[0].request.params)
        if self._paused and self._units <= self._most // 2:
            self._pause(False)
        return found

    def _release(self) -> None:
        for output in self._held:
            self._queue.put_nowait(output)
        self._held.clear()

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self._set_paused(list(self._open), paused)


def _units(params: SamplingParams) -> int:
    return 1 + (params.logprobs or 0)
