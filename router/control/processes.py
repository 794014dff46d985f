"""Relays as processes of their own."""

import asyncio
import subprocess
from collections.abc import Sequence

from ...core.process import describe_exit
from ...core.python import module_argv
from .relays import Ends

PROGRAM = tuple(module_argv("slurminfer.router.relay"))
_POLL_S = 0.01  # only while its end is expected


class RelayProcess:
    """`python -m slurminfer.router.relay`, which inherits its sockets and the board. Raises OSError."""

    def __init__(self, ends: Ends, program: Sequence[str] = PROGRAM) -> None:
        sockets = (ends.channel, ends.listener, ends.private_listener)
        channel, listener, private_listener = (sock.fileno() for sock in sockets)
        files = [channel, ends.board.fd, listener, private_listener]
        argv = [*program, *map(str, files)]
        # SIGCHLD and the event loop's child watchers stay out of it: the end of the channel tells of the relay's end.
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=files)
        self.pid = self._process.pid

    def kill(self) -> None:
        """Send SIGKILL, which ends a stopped process too."""
        self._process.kill()

    async def ended(self) -> str:
        """Wait for its end; how it came."""
        while self._process.poll() is None:
            await asyncio.sleep(_POLL_S)
        return describe_exit(self._process.returncode)
