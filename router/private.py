"""The port of the router for our own commands: the same API, after both ends have proven themselves.

A command that finds the router's address in `router.json` cannot know who listens there: if the router was killed,
another user may have taken its port. Here the command learns it before it sends its key.
"""

import socket
from types import TracebackType

from aiohttp import web

from ..core.errors import RouterError, RunDirectoryError
from ..core.files import read_private
from ..core.net.acceptor import Acceptor
from ..core.net.address import node_address
from ..core.net.identity import make_identity, server_context
from ..core.net.sockets import listening_socket
from ..core.rundir import RunDirectory


class PrivateListener:
    """Accepts for the server of `runner`, which is set up, as long as the `with` lasts. Raises SlurminferError."""

    def __init__(self, run: RunDirectory, runner: web.AppRunner) -> None:
        assert runner.server is not None, "runner.setup() comes before"
        self._path, self._listener = run.router_identity_path, _listen()
        make_identity(self._path, f"slurminfer router {run.path.name}")
        self._identity = read_private(self._path)
        self._acceptor = Acceptor(self._listener, server_context(self._path), runner.server)
        self.url = "https://{}:{}".format(*self._listener.getsockname())

    def __enter__(self) -> "PrivateListener":
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Accept no more, and remove the identity unless a later router has put its own there."""
        self._acceptor.close()
        try:
            if read_private(self._path) == self._identity:
                self._path.unlink(missing_ok=True)
        except (RunDirectoryError, OSError):  # without this process the identity is useless anyway
            return


def _listen() -> socket.socket:
    address = node_address()
    try:
        return listening_socket(address)
    except OSError as error:
        raise RouterError(f"cannot listen on {address}: {error.strerror}") from error
