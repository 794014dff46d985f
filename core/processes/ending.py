"""Ending a child process: SIGTERM, then SIGKILL where that was not enough, and no zombie is left."""

import asyncio
import subprocess
from asyncio.subprocess import Process
from contextlib import suppress


def end_child(child: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Send SIGTERM, after `patience_s` seconds SIGKILL, and wait for the end. One that has ended is no error."""
    child.terminate()
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


async def end_child_async(child: Process, patience_s: float) -> None:
    """The same of a process of asyncio."""
    with suppress(ProcessLookupError):  # it has just ended by itself
        child.terminate()
    try:
        async with asyncio.timeout(patience_s):
            await child.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
