"""A login node as `--to` names it, and the command lines of the user's own OpenSSH that reach it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UsageError

_EXPECTED = "expected USER@LOGIN[:PORT], or a Host of your ssh_config"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@$+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
# Without the command and the forwardings that the configuration may have: they are for the user's own sessions.
_BARE = ("-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none")
_MASTER = ("-o", "ControlMaster=yes", "-o", "ControlPersist=no")


@dataclass(frozen=True)
class Login:
    """A login node, and how to start slurminfer there."""

    host: str
    user: str | None = None
    port: int | None = None
    remote: str = "slurminfer"  # shell words

    def __str__(self) -> str:
        return self.host if self.user is None else f"{self.user}@{self.host}"

    @property
    def destination(self) -> list[str]:
        """The arguments that name it."""
        return [*([] if self.port is None else ["-p", str(self.port)]), str(self)]

    def session(self, command: str, control: Path | None = None) -> list[str]:
        """Run a shell command there, over a connection that others can share at `control`.

        None: over the connection that the user's configuration keeps open, or else one that is not shared.
        """
        sharing = ["-o", "ControlMaster=no"] if control is None else [*_MASTER, "-S", str(control)]
        return ["ssh", *_BARE, *sharing, *self.destination, command]

    def configuration(self) -> list[str]:
        """Print the user's configuration for it; `controlpath` is where a connection may be shared."""
        return ["ssh", "-G", *self.destination]

    def check(self, control: Path) -> list[str]:
        """Ask whether a connection is open at `control`."""
        return ["ssh", "-F", "none", "-S", str(control), "-O", "check", str(self)]

    def forwarding(self, operation: str, path: Path, address: tuple[str, int], control: Path) -> list[str]:
        """Open ("forward") or close ("cancel") a Unix socket that leads to an address, by the connection at `control`.

        Without the configuration, which may name forwardings of its own.
        """
        leads = f"{path}:{_bracketed(address)}"
        return ["ssh", "-F", "none", "-S", str(control), "-O", operation, "-L", leads, str(self)]

    def plain_tunnel(self, local: str, port: int, address: tuple[str, int]) -> str:
        """The command that a person would type to forward a port."""
        return shlex.join(["ssh", "-N", "-L", f"{local}:{port}:{_bracketed(address)}", *self.destination])

    def endpoint_command(self, name: str, *options: str) -> str:
        """The shell command that says there where a deployment's router is."""
        return f"{self.remote} endpoint {shlex.join([name, *options])}"


def parse_login(text: str, remote: str) -> Login:
    """The login node that `--to` names. Raises UsageError."""
    user, at, rest = text.rpartition("@")
    host, port = _split_port(rest)
    if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(host):
        raise UsageError(f"--to {text!r}: {_EXPECTED}")
    if port is not None and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"--to {text!r}: the port is {port!r}; expected a number of 1 to 65535")
    if not remote.strip() or "\n" in remote:
        raise UsageError(f"--remote {remote!r}: expected the command that starts slurminfer on the login node")
    return Login(host=host, user=user if at else None, port=None if port is None else int(port), remote=remote)


def _split_port(text: str) -> tuple[str, str | None]:
    """Host and port, if there is one. IPv6 addresses stand in brackets where a port follows."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, port[1:] if port.startswith(":") else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _bracketed(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
