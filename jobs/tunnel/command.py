"""`slurminfer tunnel`: a stable local port that leads to a deployment's router."""

import asyncio
import getpass
import shlex
import signal
import socket
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...core.errors import TunnelError, UsageError
from ...core.net.sockets import allow_many_sockets
from ...core.private_folder import private_folder
from ...core.rundir import RunDirectory
from ...core.spec.values import is_name
from ..terminal.console import stdout
from .here import follow_here
from .login import Login, parse_login
from .port import ADDRESS, likely_port, open_port
from .printer import Printer, environment_lines, https_lines
from .relay import Relay, Target
from .remote import follow_over_ssh
from .ssh import ask_once
from .view import EndpointReader, address_of

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(name: str, to: str | None, remote: str | None, port: int | None, as_text: bool) -> None:
    """Keep a tunnel open until it is interrupted; `as_text`: print how one would be opened by hand.

    Raises UsageError, TunnelError, RunDirectoryError.
    """
    login = _login(name, to, remote)
    if as_text:
        _print_by_hand(name, login, port)
        return
    allow_many_sockets()
    existing = RunDirectory.existing(name) if login is None else None
    listener = open_port(name, None if login is None else _shown(login), port)
    with listener, private_folder() as folder:
        asyncio.run(_until_ended(_serve(name, login, existing, listener, folder)))


def _login(name: str, to: str | None, remote: str | None) -> Login | None:
    if to is None:
        if remote is not None:
            raise UsageError("--remote says how slurminfer starts on the login node that --to names; give that too")
        return None
    if not is_name(name):
        raise UsageError(f"{name!r} is no deployment's name")
    return parse_login(to, remote or "slurminfer")


async def _serve(
    name: str, login: Login | None, existing: RunDirectory | None, listener: socket.socket, folder: Path
) -> None:
    target = Target()
    printer = Printer(listener.getsockname()[1], folder)
    relay = Relay(listener, target, printer.refused)
    await relay.start()
    try:
        if login is not None:
            printer.note(f"connecting to {login}")
            await follow_over_ssh(login, name, target, printer, folder)
        elif existing is not None:
            await follow_here(EndpointReader(existing).read, target, printer, existing.key_path)
    finally:
        relay.close()


async def _until_ended(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it ends or a signal asks for the end, which is the usual end of a tunnel."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def _print_by_hand(name: str, login: Login | None, port: int | None) -> None:
    """Print a plain ssh command and the lines for a shell, as they are right now."""
    if login is None:
        view = EndpointReader(RunDirectory.existing(name)).read_once()
        login = Login(host=socket.getfqdn(), user=getpass.getuser())
        port = port or likely_port(name, None)
    else:
        view = asyncio.run(ask_once(login, name))
        port = port or likely_port(name, _shown(login))
    if view.url is None:
        raise TunnelError(f"'{name}' has no router now: {view.reason}")
    lines = [
        login.plain_tunnel(ADDRESS, port, address_of(view.url)),
        *environment_lines(view, port, _over_ssh(login, "cat", str(Path(view.run_directory, "key")))),
        *https_lines(view, None if not view.certificate else Path(f"{name}.crt")),
    ]
    if view.certificate:
        pem = str(Path(view.run_directory, "router-ca.pem"))
        lines.insert(-1, f"{_over_ssh(login, 'openssl', 'x509', '-in', pem)} > {name}.crt")
    for line in lines:
        stdout.print(line)


def _over_ssh(login: Login, *command: str) -> str:
    """The command line that runs a command on the login node."""
    return shlex.join(["ssh", *login.destination, shlex.join(command)])


def _shown(login: Login) -> str:
    return str(login) if login.port is None else f"{login}:{login.port}"
