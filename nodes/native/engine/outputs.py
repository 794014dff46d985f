"""What the engine has generated for one client and the client has not read yet: a bounded buffer."""

import asyncio
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

    def __init__(self, requests: Sequence[Request], set_paused: SetPaused) -> None:
        """`set_paused` is told which requests to pause, or to resume."""
        self._open = dict.fromkeys(request.id for request in requests)
        self._set_paused = set_paused
        self._most = max(_MOST_UNITS, _FEWEST_STEPS * sum(_units(request.params) for request in requests))
        self._queue: asyncio.Queue[Output | EngineError] = asyncio.Queue()
        self._units = 0
        self._paused = False

    def put(self, output: Output) -> None:
        """Add an output of the engine."""
        self._queue.put_nowait(output)
        self._units += _units(output.request.params)
        if output.finish:
            del self._open[output.request.id]
        if self._units > self._most and self._open and not self._paused:
            self._pause(True)

    def fail(self, error: EngineError) -> None:
        """Let `get` raise `error` when all outputs before it are read."""
        self._queue.put_nowait(error)

    async def get(self) -> Output:
        """The next output. Raises EngineError if the engine has ended, RequestFailedError if it failed on a request."""
        output = await self._queue.get()
        if isinstance(output, EngineError):
            raise output
        self._units -= _units(output.request.params)
        if self._paused and self._units <= self._most // 2:
            self._pause(False)
        return output

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        self._set_paused(list(self._open), paused)


def _units(params: SamplingParams) -> int:
    return 1 + (params.logprobs or 0)
