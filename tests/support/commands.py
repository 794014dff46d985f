"""Commands of ours as users give them, each in a process of its own that is forked: see command_server.py."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

PROGRAM = Path(__file__).with_name("command_server.py")


class Commands:
    """Runs commands on behalf of one user.

    Args:
        argv_as: makes of a command line the one that the user would run it by.
        owner: of the folder in which the server listens, if that is another user.
    """

    def __init__(
        self, argv_as: Callable[[list[str]], Sequence[str]] = lambda argv: argv, owner: int | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="slurminfer-test-"))
        if owner is not None:
            os.chown(self._folder, owner, -1)
        argv = argv_as([sys.executable, str(PROGRAM), str(self._folder / "socket")])
        self._server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        said = self._server.stdout.readline()
        assert said == b"ready\n", said

    def run(
        self, words: Sequence[str], env: Mapping[str, str], folder: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `slurminfer` with these words to its end, whatever its exit status. Raises TimeoutError.

        Args:
            words: of the command line.
            env: what to add to the environment in which this object was made.
            folder: to run in.
            timeout_s: after which the command is killed.
        """
        asked = {"words": list(words), "env": dict(env), "folder": str(folder)}
        with (
            socket.socket(socket.AF_UNIX) as connection,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            connection.settimeout(timeout_s)
            connection.connect(str(self._folder / "socket"))
            socket.send_fds(connection, [json.dumps(asked).encode()], [output.fileno(), errors.fileno()])
            with connection.makefile(encoding="ascii") as told:
                pid = int(told.readline())
                try:
                    status = int(told.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise TimeoutError(f"{' '.join(words)}: {_text(output)}{_text(errors)}") from None
            return subprocess.CompletedProcess(["slurminfer", *words], status, _text(output), _text(errors))

    def close(self) -> None:
        """End the server; commands that still run go on."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()
        shutil.rmtree(self._folder)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").replace("\r\n", "\n")
