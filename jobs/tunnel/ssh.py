"""One ssh connection to a login node: what it says of the endpoint, and a forwarding that follows the router."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ...core.errors import TunnelError
from ...core.processes.ending import end_child_async
from .login import Login
from .printer import Printer
from .view import EndpointView, address_of, parse_view

SILENCE_S = 45.0  # the other end writes every 10 s
_ENDS_WITHIN_S = 3.0
_ANSWERS_WITHIN_S = 30.0
_LONGEST_LINE = 1 << 20
_SSH_FAILED = 255
_NOT_FOUND = (126, 127)
_USAGE = 2
# After these another attempt cannot succeed, and may lock the account.
_HOPELESS = ("Permission denied", "Host key verification failed", "Too many authentication failures")
_FORBIDDEN = "administratively prohibited"  # RFC 4254, as ssh words it
_PROBE = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"  # what speaks TLS ends at that
_ERROR = "error: "  # begins what slurminfer says there


class LinkLost(Exception):
    """The connection has ended. `is_hopeless`: another attempt cannot succeed."""

    def __init__(self, reason: str, *, is_hopeless: bool = False) -> None:
        self.is_hopeless = is_hopeless
        super().__init__(reason)


class SshLink:
    """A connection in use. `views` and `lead_to` raise LinkLost when it has ended."""

    def __init__(
        self, login: Login, process: asyncio.subprocess.Process, sharing: "_Sharing", printer: Printer
    ) -> None:
        self._login, self._process, self._sharing, self._printer = login, process, sharing, printer
        self._said: list[str] = []  # on standard error
        self._listening = asyncio.create_task(self._listen())
        self._count = 0
        self._open: tuple[tuple[str, int], Path] | None = None
        self._knocking = asyncio.create_task(asyncio.sleep(0))
        self._forbidden = asyncio.Event()
        self.has_spoken = False

    async def views(self, silence_s: float = SILENCE_S) -> AsyncIterator[EndpointView]:
        """What the login node says, as it says it. The first may take as long as the user types a password.

        Raises LinkLost, and TunnelError as `parse_view`.
        """
        while True:
            view = parse_view(await self._line(silence_s if self.has_spoken else None))
            if view is not None:
                self.has_spoken = True
                yield view

    async def lead_to(self, url: str) -> Path:
        """A Unix socket that leads to the router at `url`. The one before is closed; connections through it stay.

        Raises LinkLost, TunnelError for a URL that no router has.
        """
        address = address_of(url)
        if self._open is not None and self._open[0] == address:
            return self._open[1]
        before = self._open
        path = self._sharing.folder / f"router-{self._count}"
        self._count += 1
        path.unlink(missing_ok=True)  # left by a connection before this one
        await self._ask("forward", path, address)
        self._open = (address, path)
        self._knocking.cancel()
        self._knocking = asyncio.create_task(_knock(path))
        if before is not None:
            await self._close_forwarding(before)
        return path

    async def forbidden(self) -> NoReturn:
        """Wait until the login node's sshd has refused to forward. Raises TunnelError."""
        await self._forbidden.wait()
        why = f"sshd on {self._login} forwards no connection to it ({self._said[-1]})"
        raise TunnelError(f"{why}: it has AllowTcpForwarding no, or a PermitOpen; try another login node")

    async def close(self) -> None:
        """End it, and what it has forwarded."""
        if self._open is not None and not self._sharing.is_own:  # that connection stays
            with suppress(LinkLost):
                await self._close_forwarding(self._open)
        await end_child_async(self._process, _ENDS_WITHIN_S)
        self._listening.cancel()
        self._knocking.cancel()
        await asyncio.gather(self._listening, self._knocking, return_exceptions=True)

    async def _line(self, silence_s: float | None) -> bytes:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(silence_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise LinkLost(f"no word from {self._login} for {silence_s:g} s") from None
        except ValueError:  # a line longer than any of ours
            return b""
        if not line:
            await self._raise_end()
        return line

    async def _raise_end(self) -> NoReturn:
        code = await self._process.wait()
        with suppress(asyncio.CancelledError):
            await self._listening
        is_hopeless = code == _SSH_FAILED and any(words in line for words in _HOPELESS for line in self._said)
        raise LinkLost(end_fault(self._login, code, self._said), is_hopeless=is_hopeless)

    async def _listen(self) -> None:
        """Keep and show what ssh says, such as a banner that asks for a second factor."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            text = line.decode(errors="replace").strip()
            if text:
                self._said = [*self._said[-19:], text]
                if _FORBIDDEN in text:
                    self._forbidden.set()
                self._printer.ssh_said(text)

    async def _close_forwarding(self, forwarding: tuple[tuple[str, int], Path]) -> None:
        address, path = forwarding
        await self._ask("cancel", path, address)
        path.unlink(missing_ok=True)

    async def _ask(self, operation: str, path: Path, address: tuple[str, int]) -> None:
        argv = self._login.forwarding(operation, path, address, self._sharing.control)
        code, said = await run_ssh(argv)
        if code != 0:
            raise LinkLost(f"ssh -O {operation}: {said or f'exit code {code}'}")


@dataclass(frozen=True)
class _Sharing:
    """How commands use the connection of a session."""

    control: Path  # the socket by which they reach it
    is_own: bool  # it ends with the session; else the user's configuration keeps it open
    folder: Path  # for sockets of forwardings; only this user can enter it


@asynccontextmanager
async def connect(login: Login, name: str, folder: Path, printer: Printer) -> AsyncIterator[SshLink]:
    """One connection, which follows deployment `name`, until the block is left.

    It is the one that the user's configuration keeps open, if there is one: no second authentication. Raises
    TunnelError without ssh.
    """
    kept = await _kept_open(login)
    control = folder / "ssh"
    control.unlink(missing_ok=True)
    sharing = _Sharing(kept or control, kept is None, folder)
    command = login.endpoint_command(name, "--follow", "--with-key")
    process = await _start(login.session(command, None if kept else control))
    link = SshLink(login, process, sharing, printer)
    try:
        yield link
    finally:
        await link.close()


async def _knock(path: Path) -> None:
    """Use a forwarding once, so that ssh says at once whether it may, and not when a client comes."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(_PROBE)
            await reader.read(1)
        finally:
            writer.close()


async def _kept_open(login: Login) -> Path | None:
    """Where a connection can be shared that the user's configuration keeps open; None if there is none."""
    code, said = await run_ssh(login.configuration())
    paths = [line.partition(" ")[2] for line in said.splitlines() if line.startswith("controlpath ")]
    if code != 0 or not paths or paths[0] == "none":
        return None
    code, _ = await run_ssh(login.check(Path(paths[0])))
    return Path(paths[0]) if code == 0 else None


async def ask_once(login: Login, name: str) -> EndpointView:
    """What the login node says now. Raises TunnelError."""
    process = await _start(login.session(login.endpoint_command(name)), has_input=False)
    out, err = await process.communicate()
    for line in out.splitlines():
        view = parse_view(line)
        if view is not None:
            return view
    raise TunnelError(end_fault(login, process.returncode or 0, err.decode(errors="replace").strip().splitlines()))


async def run_ssh(argv: list[str]) -> tuple[int, str]:
    """Exit code of a short ssh command, and its output, or what it complains of. Raises TunnelError without ssh."""
    process = await _start(argv, has_input=False)
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return _SSH_FAILED, f"no answer within {_ANSWERS_WITHIN_S:g} s"
    code = process.returncode or 0
    return code, (err if code else out).decode(errors="replace").strip()


def end_fault(login: Login, code: int, said: list[str]) -> str:
    """Why a session has ended, for the user.

    Args:
        login: the login node.
        code: ssh's exit code, which is the remote command's if that has run.
        said: lines of standard error.
    """
    last = said[-1] if said else ""
    if code == _SSH_FAILED or code < 0:
        return f"ssh {login}: {last.removeprefix('ssh: ') or 'it ended without a word'}"
    if code in _NOT_FOUND or "ommand not found" in last:
        found = f"{login} has no {login.remote!r} ({last or f'exit code {code}'})"
        return f"{found}; --remote says where it is, such as --remote '~/venv/bin/slurminfer'"
    if code == _USAGE and any("No such command" in line for line in said):
        return f"slurminfer on {login} is older than this one, and has no 'endpoint': update it"
    errors = [line.removeprefix(_ERROR) for line in said if line.startswith(_ERROR)]
    return f"{login}: {errors[-1] if errors else last or f'the command there ended with exit code {code}'}"


async def _start(argv: list[str], *, has_input: bool = True) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            # The other end ends with its input, also where this process is killed.
            stdin=pipe if has_input else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            limit=_LONGEST_LINE,
        )
    except FileNotFoundError as error:
        raise TunnelError("ssh: command not found; --to needs OpenSSH's client") from error
