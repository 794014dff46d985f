"""A real sshd as an ordinary process, with keys and a configuration of its own, and an ssh that knows only this one."""

import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .addresses import free_address
from .waiting import eventually

_PRIVILEGES = Path("/run/sshd")  # where sshd puts its processes without rights, if root runs it
_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
PidFile none
"""
_CLIENT = """
Host login
  HostName 127.0.0.1
  Port {port}
  User {user}
  BatchMode yes
  IdentitiesOnly yes
  IdentityFile {folder}/key
  UserKnownHostsFile {folder}/known_hosts
"""


def _as_it_is(argv: list[str]) -> list[str]:
    return argv


class Sshd:
    """A login node on loopback, named `login` for the `ssh` in `bin`.

    Args:
        folder: for keys, configuration and log.
        user: who runs it and logs in.
        enter: makes of a command line the one that runs it as that user, where that is.
    """

    def __init__(
        self, folder: Path, user: str | None = None, enter: Callable[[list[str]], list[str]] = _as_it_is
    ) -> None:
        self._user, self._enter = user or getpass.getuser(), enter
        self.folder, self.port = folder, int(free_address().partition(":")[2])
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        public = (folder / "host_key.pub").read_text(encoding="utf-8")
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}", encoding="utf-8")
        self.serve("")
        self.configure("")
        ssh = self.bin / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n', encoding="utf-8")
        ssh.chmod(0o755)

    def serve(self, further: str) -> None:
        """Give the server's configuration a further line, for the next start."""
        self._write("sshd_config", f"{_SERVER}{further}\n")

    def configure(self, further: str) -> None:
        """Give the client's configuration further lines."""
        self._write("config", _CLIENT + further)

    def env(self) -> dict[str, str]:
        """For programs that call `ssh`."""
        return {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    def start(self) -> None:
        """Start it, again at the same port."""
        with (self.folder / "sshd.log").open("ab") as log:
            argv = self._enter([str(_server()), "-D", "-e", "-f", str(self.folder / "sshd_config")])
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._answers, "sshd answers")

    def kill(self) -> None:
        """Kill it with all its connections; what runs in them lives on, as after a crash."""
        if self._process is None:
            return
        daemon = psutil.Process(self._process.pid)
        for process in [daemon, *daemon.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sshd":
                    process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def sessions(self) -> list[str]:
        """The command lines of what runs in its connections."""
        assert self._process is not None
        lines = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.name() != "sshd":
                    lines.append(" ".join(process.cmdline()))
        return lines

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "sshd.log").read_text()
        done = subprocess.run([str(self.bin / "ssh"), "login", "echo in service"], capture_output=True)
        return b"in service" in done.stdout

    def _write(self, name: str, text: str) -> None:
        filled = text.format(folder=self.folder, port=self.port, user=self._user)
        (self.folder / name).write_text(filled, encoding="utf-8")


def require_sshd() -> None:
    """Skip the test where there is no OpenSSH."""
    if not all(shutil.which(name) for name in ("ssh", "ssh-keygen")):
        pytest.skip("no ssh: on Debian, apt-get install openssh-client")
    if _server() is None:
        pytest.skip("no sshd: as root on Debian, make openssh")
    if os.geteuid() == 0:
        _PRIVILEGES.mkdir(exist_ok=True)


def _server() -> str | None:
    return shutil.which("sshd", path=f"/usr/sbin:{os.environ['PATH']}")
