"""Relays as processes of their own."""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence

from ...core.processes.process import describe_exit
from ...core.processes.python import module_argv
from .relays import Ends

PROGRAM = tuple(module_argv("slurminfer.router.relay"))
_POLL_S = 0.01  # only while its end is expected
# glibc raises this threshold when a large table is freed. From then on it takes tables from the heap, and each new copy
# of the table of prefix owners would leave a hole of 20 MiB there. A value that is set is never raised.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a relay, made of that of the supervisor."""
    return {**_MALLOC, **given}


class RelayProcess:
    """`python -m slurminfer.router.relay`, which inherits its sockets and the board. Raises OSError."""

    def __init__(self, ends: Ends, program: Sequence[str] = PROGRAM) -> None:
        sockets = (ends.channel, ends.listener, ends.private_listener)
        channel, listener, private_listener = (sock.fileno() for sock in sockets)
        files = [channel, ends.board.fd, listener, private_listener]
        argv = [*program, *map(str, files)]
        # SIGCHLD and the event loop's child watchers stay out of it: the end of the channel tells of the relay's end.
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=files, env=environment(os.environ))
        self.pid = self._process.pid

    def kill(self) -> None:
        """Send SIGKILL, which ends a stopped process too."""
        self._process.kill()

    async def ended(self) -> str:
        """Wait for its end; how it came."""
        while self._process.poll() is None:
            await asyncio.sleep(_POLL_S)
        return describe_exit(self._process.returncode)
