"""Ending children: those that obey, those that do not, and those that have ended already."""

import asyncio
import signal
import subprocess
import sys

import pytest

from slurminfer.core.processes.ending import end_child, end_child_async

OBEYS = "print(flush=True); input()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
CASES = [(OBEYS, 60.0, -signal.SIGTERM), (DEAF, 0.01, -signal.SIGKILL), ("print(flush=True)", 60.0, 0)]


@pytest.mark.parametrize(("program", "patience_s", "code"), CASES)
def test_a_child_has_ended_and_left_no_zombie(program, patience_s, code):
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        if code == 0:
            child.wait()
        end_child(child, patience_s)
        assert child.returncode == code


@pytest.mark.parametrize(("program", "patience_s", "code"), CASES)
def test_a_child_of_asyncio_too(program, patience_s, code):
    async def run():
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
        assert child.stdout is not None
        await child.stdout.readline()
        if code == 0:
            await child.wait()
        await end_child_async(child, patience_s)
        assert child.returncode == code

    asyncio.run(run())
