"""Sends attempts to a server, many at once, and says which answers were wrong."""

import asyncio
import itertools
import socket
import struct
from collections.abc import Iterator

from .attempts import Attempt, Leave

_AT_ONCE = 48
_ANSWER_S = 60.0
_LINGER_OFF = struct.pack("ii", 1, 0)  # closing resets the connection
_PIECE = 1 << 16
_MOST_SHOWN, _SHOWN = 10, 1500  # wrong answers, characters of each


def storm(port: int, attempts: Iterator[Attempt], count: int) -> dict[int, int]:
    """Make `count` attempts; how often each status came (0: none). Raises AssertionError that shows the wrong ones."""
    seen: dict[int, int] = {}
    wrong: list[str] = []
    asyncio.run(_storm(port, itertools.islice(attempts, count), seen, wrong))
    assert not wrong, f"{len(wrong)} of {count} attempts had a wrong answer:\n" + "\n".join(wrong[:_MOST_SHOWN])
    return seen


async def _storm(port: int, attempts: Iterator[Attempt], seen: dict[int, int], wrong: list[str]) -> None:
    async def work() -> None:
        for attempt in attempts:
            status = await _make(port, attempt)
            seen[status] = seen.get(status, 0) + 1
            if attempt.is_http and not _is_right(status, attempt):  # what is no HTTP may get 501 or 505
                wrong.append(f"{status or 'no answer'}: {attempt}"[:_SHOWN])

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())


def _is_right(status: int, attempt: Attempt) -> bool:
    return 200 <= status < 300 or 400 <= status < 500 or (status == 0 and not attempt.must_be_answered)


async def _make(port: int, attempt: Attempt) -> int:
    """Make one attempt; the status of its answer, 0 where none came or its client has not waited for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await _talk(reader, writer, attempt)
    except (ConnectionError, TimeoutError):
        return 0
    finally:
        if attempt.leave is not Leave.NEVER:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        writer.transport.abort()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attempt: Attempt) -> int:
    sent = {
        Leave.IN_HEAD: attempt.head[: len(attempt.head) // 2],
        Leave.IN_BODY: attempt.head + attempt.body[: len(attempt.body) // 2],
    }.get(attempt.leave, attempt.head + attempt.body)
    writer.write(sent)
    try:
        await writer.drain()
    except ConnectionError:
        if not attempt.must_be_answered:
            return 0  # refused before all of it was sent; else its answer may be there all the same
    if attempt.leave in (Leave.IN_HEAD, Leave.IN_BODY, Leave.ASKED):
        return 0
    answer = await reader.read(_PIECE)
    while attempt.leave is Leave.NEVER and (piece := await reader.read(_PIECE)):
        answer = (answer + piece)[: 2 * _PIECE]
    line = answer.partition(b"\r\n")[0].split(b" ")
    return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/1.") and line[1].isdigit() else 0
