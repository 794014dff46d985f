"""The tunnel through a login node: one ssh connection after the other, as long as the tunnel is wanted."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from ...core.errors import TunnelError
from . import ssh
from .login import Login
from .printer import Printer
from .relay import Target, over_socket
from .ssh import LinkLost, SshLink

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


async def follow_over_ssh(
    login: Login,
    name: str,
    target: Target,
    printer: Printer,
    folder: Path,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Lead `target` to the router of deployment `name` on the cluster of `login`, until cancelled.

    `folder` is one that only this user can enter. Raises TunnelError where the first connection says nothing of the
    deployment, or where another one cannot succeed.
    """
    pauses, has_worked = 0, False
    while True:
        try:
            async with ssh.connect(login, name, folder, printer) as link:
                try:
                    await _follow(link, target, printer)
                finally:
                    target.set(None)
                    if link.has_spoken:
                        pauses, has_worked = 0, True
        except LinkLost as lost:
            if lost.is_hopeless or not has_worked:
                raise TunnelError(str(lost)) from lost
            pause_s = min(_FIRST_PAUSE_S * 2**pauses, _LONGEST_PAUSE_S)
            printer.lost(str(lost), pause_s)
            await sleep(pause_s)
            pauses += 1


async def _follow(link: SshLink, target: Target, printer: Printer) -> None:
    """Raises LinkLost, TunnelError."""
    tasks = [asyncio.create_task(_lead(link, target, printer)), asyncio.create_task(link.forbidden())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lead(link: SshLink, target: Target, printer: Printer) -> None:
    async for view in link.views():
        if view.url is not None and view.reachable:
            target.set(over_socket(await link.lead_to(view.url)))
        else:
            target.set(None)
        printer.view(view)
