"""The way from our own commands to a deployment's router, which proves itself before it gets a key or a prompt."""

import ssl
from dataclasses import dataclass

from ...core.errors import SlurminferError
from ...core.net.identity import client_context
from ...core.records import RouterRecord
from ...core.rundir import RunDirectory


@dataclass(frozen=True)
class RouterLink:
    """Where the router listens for our commands, and the TLS by which both ends prove themselves."""

    url: str  # https://ADDRESS:PORT
    tls: ssl.SSLContext


def router_link(run: RunDirectory, router: RouterRecord | None) -> RouterLink | None:
    """The way to the router that `router` tells of; None where there is none now."""
    if router is None or router.private_url is None or not router.private_url.startswith("https://"):
        return None
    try:
        return RouterLink(router.private_url, client_context(run.router_identity_path))
    except SlurminferError:  # the router has just ended, or the file is not ours to believe
        return None
