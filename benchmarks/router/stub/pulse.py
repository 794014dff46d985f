"""Endless streams that all get one event at every step, as a batching engine writes them."""

import asyncio
import time

_EVENT = (
    'data: {"id":"chatcmpl-8f2b6c1d9e3a4f60b7a5c4d3e2f1a0b9","object":"chat.completion.chunk","created":1700000000,'
    '"model":"stub","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null,'
    '"matched_stop":null}],"usage":null,"made_ns":%d}\n\n'
)


def event() -> bytes:
    """An event of about 250 bytes, as an HTTP chunk; it says when it was made."""
    data = (_EVENT % time.monotonic_ns()).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


class Pulse:
    """What writes to all streams at once: so many steps a second, or a step whenever it is told to."""

    def __init__(self) -> None:
        self.streams: set[asyncio.Transport] = set()
        self._pace: asyncio.Task[None] | None = None

    def step(self) -> None:
        """Write one event to each stream."""
        chunk = event()
        for stream in self.streams:
            stream.write(chunk)

    def set_pace(self, steps_per_s: float) -> None:
        """Step so often from now on; 0: only when told to."""
        if self._pace is not None:
            self._pace.cancel()
        self._pace = asyncio.create_task(self._run(steps_per_s)) if steps_per_s else None

    async def _run(self, steps_per_s: float) -> None:
        due = time.monotonic()
        while True:
            self.step()
            due = max(due + 1 / steps_per_s, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))
