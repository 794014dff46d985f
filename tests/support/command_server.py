"""`python command_server.py SOCKET`: runs commands of ours in processes that are forked from this one.

It has imported what they need: each takes a fifth of the CPU time that `python -m slurminfer` takes. A connection is
for one command: a line of JSON with words, folder and changes of the environment, and descriptors for its output and
errors. What comes back are its process id and, when it has ended, its exit status. commands.py is the other end.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from contextlib import suppress

PRELOADED = (
    "slurminfer.cli",
    "slurminfer.core.net.identity",
    "slurminfer.jobs.batch.commands.run",
    "slurminfer.jobs.batch.commands.status",
    "slurminfer.jobs.serve.deployment",
    "slurminfer.jobs.serve.status.views",
    "slurminfer.slurm.submit",
    "httpx",
)
MAYBE = ("typer._adapters",)  # what Typer imports for its first command
LONGEST = 1 << 20


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    for name in MAYBE:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    # Out of the server, so that a command ends as a program does that nobody forked.
    words = Server(sys.argv[1]).run()
    if words is not None:
        sys.argv = ["slurminfer", *words]
        runpy.run_module("slurminfer", run_name="__main__", alter_sys=True)


class Server:
    """Serves until its standard input ends."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._commands: dict[int, socket.socket] = {}  # by process id
        self._woken, wake = socket.socketpair()
        wake.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> list[str] | None:
        """The words of a command, in the process that shall run it; None in this one, at the end."""
        with selectors.DefaultSelector() as selector:
            for file in (0, self._listener, self._woken):
                selector.register(file, selectors.EVENT_READ)
            print("ready", flush=True)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._listener:
                        words = self._fork()
                        if words is not None:
                            return words
                    elif key.fileobj is self._woken:
                        self._woken.recv(4096)
                        self._tell_ends()
                    elif not os.read(0, 1):
                        return None

    def _fork(self) -> list[str] | None:
        """The command's words in the new process; None in this one."""
        connection, _ = self._listener.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, LONGEST, 2)
        asked = json.loads(data)
        pid = os.fork()
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.sendall(f"{pid}\n".encode())
            self._commands[pid] = connection
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, self._before)
        for other in (connection, self._listener, self._woken, self._wake, *self._commands.values()):
            other.close()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, *descriptors)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.update(asked["env"])
        os.chdir(asked["folder"])
        words: list[str] = asked["words"]
        return words

    def _tell_ends(self) -> None:
        while self._commands:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            connection = self._commands.pop(pid)
            with suppress(OSError), connection:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
