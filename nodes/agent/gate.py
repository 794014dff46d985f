"""The gate of a worker that is reached over the network: a child process that only lets in who has its identity."""

import socket
import time
from pathlib import Path

from ...core.errors import EngineError
from ...core.net.sockets import listening_socket
from ...core.processes.python import module_argv
from .process import EngineProcess
from .task import Task

_MOST_DEATHS = 3  # within _SOON_S; with more, the worker fails
_SOON_S = 60.0


class Gate:
    """A TCP port of this node, kept for as long as the agent lives, and the process that accepts at it."""

    def __init__(self, task: Task, engine: Path) -> None:
        """Make the identity and start the gate before the Unix socket `engine`. Raises SlurminferError."""
        from ...core.net.identity import make_identity  # with cryptography: a local worker has no gate

        self._task, self._engine = task, engine
        self._identity = task.run.worker_identity_path(task.worker_id, task.place.epoch)
        self._listener = _listen(task.address)
        make_identity(self._identity, f"slurminfer {task.worker_id}")
        self._deaths: list[float] = []
        self._process = self._start()

    @property
    def url(self) -> str:
        """Where the router finds it."""
        return "https://{}:{}".format(*self._listener.getsockname())

    def keep(self) -> None:
        """Start it again if it has died: the port is the same. Raises EngineError where it dies again and again."""
        if self._process.exit_code() is None:
            return
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < _SOON_S] + [now]
        why = self._process.exit_reason("gate")
        self._process.stop()
        if len(self._deaths) > _MOST_DEATHS:
            raise EngineError(f"{why}, {len(self._deaths)} times in {_SOON_S:g} s")
        print(f"{why}; it is started again", flush=True)
        self._process = self._start()

    def close(self) -> None:
        """End it, and remove the identity, so that no connection can be made with it any more."""
        self._process.stop(grace_s=0.0)
        self._listener.close()
        self._identity.unlink(missing_ok=True)

    def _start(self) -> EngineProcess:
        descriptor, task = self._listener.fileno(), self._task
        words = ["--fd", str(descriptor), "--identity", str(self._identity), "--socket", str(self._engine)]
        argv = module_argv("slurminfer.nodes.gate", *words)
        log = task.run.logs_of(task.worker_id) / f"gate.{task.place.epoch}.log"
        return EngineProcess(argv, {}, log, pass_fds=[descriptor])


def _listen(address: str) -> socket.socket:
    try:
        return listening_socket(address)
    except OSError as error:
        raise EngineError(f"cannot listen on {address}: {error.strerror}") from error
