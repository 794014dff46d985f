"""The sockets that an engine listens on: a TCP port, or a Unix socket that only its owner can reach."""

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ...core.errors import EngineError
from ...core.locks import wait_lock
from ...core.net.sockets import BACKLOG, LONGEST_SOCKET_PATH, listening_socket
from ...core.trust import OTHERS_RIGHTS, PRIVATE_FILE
from .options import ServerOptions


@contextmanager
def listening(options: ServerOptions) -> Iterator[list[socket.socket]]:
    """The sockets that `options` name, so that nobody else gets them while the model is loading. Raises EngineError."""
    with ExitStack() as stack:
        sockets = []
        if options.uds is not None:
            sockets.append(stack.enter_context(_unix(options.uds)))
        if options.tcp_port is not None:
            sockets.append(stack.enter_context(bind(options.host, options.tcp_port)))
        yield sockets


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket that listens already. Raises EngineError."""
    try:
        return listening_socket(host, port)
    except (OSError, OverflowError) as error:
        raise EngineError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from error


def bind_unix(path: Path) -> socket.socket:
    """A Unix socket of mode 0600 that listens already, in a folder that nobody else can enter.

    The socket of a process that has ended is replaced. Raises EngineError where another process listens, where `path`
    is something else, or where the folder is missing, not ours, or open to others.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise EngineError(f"uds = {path}: expected a path of at most {LONGEST_SOCKET_PATH} bytes")
    _require_private(path.parent)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            wait_lock(folder)  # two processes must not both take the socket of a dead one
            return _bind_unix(path)
        finally:
            os.close(folder)
    except OSError as error:
        raise EngineError(f"cannot listen on {path}: {error.strerror or error}") from error


def url(listener: socket.socket) -> str:
    """How a client names the server behind `listener`."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def urls(listeners: Sequence[socket.socket]) -> str:
    """All of them, for a line of log."""
    return " and ".join(map(url, listeners))


@contextmanager
def _unix(path: Path) -> Iterator[socket.socket]:
    """A Unix socket whose file goes with it, unless another process has replaced it."""
    listener = bind_unix(path)
    made = path.lstat().st_ino
    try:
        with listener:
            yield listener
    finally:
        with suppress(FileNotFoundError):
            if path.lstat().st_ino == made:
                path.unlink()


def _require_private(folder: Path) -> None:
    try:
        found = folder.stat()
    except OSError as error:
        raise EngineError(f"uds: cannot use the folder {folder}: {error.strerror}") from error
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or mode & OTHERS_RIGHTS:
        raise EngineError(f"uds: folder {folder} has mode {mode:04o} and owner {found.st_uid}: expected a folder of "
                          f"mode 0700 that user {os.geteuid()} owns")  # fmt: skip


def _bind_unix(path: Path) -> socket.socket:
    """Raises OSError, EngineError."""
    if path.is_symlink() or path.exists():
        if not path.is_socket() or path.is_symlink():
            raise EngineError(f"uds = {path}: exists and is no socket; expected a free name")
        if _is_answered(path):
            raise EngineError(f"cannot listen on {path}: another process listens there")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(PRIVATE_FILE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is an answer too
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        return True
