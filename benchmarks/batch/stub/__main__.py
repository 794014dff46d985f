"""A stub endpoint: python -m benchmarks.batch.stub PORT_FILE. Serves on a free port of loopback until it is killed.

It computes nothing. Its answer to a chat request is the number of the row, which the prompt has after `row `, so that
each row's answer can be checked. As engines do, it tells its load at /metrics (of an engine that computes CAPACITY
requests at once), its model, and usage. A GET of /asked says when the first POST came, and how many there were.
"""

import asyncio
import gc
import json
import socket
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

MODEL = "stub"
CAPACITY = 256
MARK = b"row "
_END = b"\r\n\r\n"
_LENGTH = b"ength: "  # of Content-Length, however it is written
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "stub"}]}).encode()
_ANSWER = (
    b'{"id":"chatcmpl-%(number)b","object":"chat.completion","created":0,"model":"stub","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%(number)b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,'
    b'"completion_tokens":4,"total_tokens":16}}'
)


class State:
    """What all connections share."""

    def __init__(self) -> None:
        self.posts, self.first_at = 0, 0.0

    def get(self, path: bytes) -> tuple[int, bytes]:
        """Status and body of a GET."""
        if path.endswith(b"/models"):
            return 200, _MODELS
        if path == b"/asked":
            return 200, json.dumps({"first_at": self.first_at, "posts": self.posts}).encode()
        if path == b"/metrics":
            return 200, b"vllm:num_requests_running %d\nvllm:num_requests_waiting 0\n" % CAPACITY
        return 404, b'{"error": {"message": "there is no such page"}}'


class Connection(asyncio.Protocol):
    """One connection. Requests come one after the other, with a Content-Length."""

    def __init__(self, state: State) -> None:
        self._state, self._got = state, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        got = self._got + data if self._got else data
        while (end := got.find(_END)) >= 0:
            whole = end + len(_END) + _length(got, end)
            if len(got) < whole:
                break
            self._answer(got[:end], got[end + len(_END) : whole])
            got = got[whole:]
        self._got = got

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET "):
            status, said = self._state.get(head.split(b" ", 2)[1])
        else:
            status, said = 200, _ANSWER % {b"number": _number(body)}
            if not self._state.posts:
                self._state.first_at = time.time()
            self._state.posts += 1
        self._transport.write(
            b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(said), said)
        )


def _length(got: bytes, end: int) -> int:
    at = got.find(_LENGTH, 0, end)
    if at < 0:
        return 0
    stop = got.find(b"\r", at, end)
    return int(got[at + len(_LENGTH) : stop if stop >= 0 else end])


def _number(body: bytes) -> bytes:
    at = body.find(MARK) + len(MARK)
    stop = at
    while body[stop : stop + 1].isdigit():
        stop += 1
    return body[at:stop]


async def serve(port_file: Path) -> None:
    """Serve until cancelled."""
    loop, state = asyncio.get_running_loop(), State()
    sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
    await loop.create_server(lambda: Connection(state), sock=sock, backlog=4096)
    port_file.write_text(f"{sock.getsockname()[1]}\n", encoding="utf-8")
    gc.freeze()
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
