"""The way from our own commands to a deployment's router, which proves itself before it gets a key or a prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...core.errors import SlurminferError
from ...core.records import RouterRecord
from ...core.rundir import RunDirectory

if TYPE_CHECKING:
    import ssl

_ANSWERS_S = 3.0


@dataclass(frozen=True)
class RouterLink:
    """Where the router listens for our commands, and the TLS by which both ends prove themselves."""

    url: str  # https://ADDRESS:PORT
    tls: "ssl.SSLContext"


def router_link(run: RunDirectory, router: RouterRecord | None) -> RouterLink | None:
    """The way to the router that `router` tells of; None where there is none now."""
    if router is None or router.private_url is None or not router.private_url.startswith("https://"):
        return None
    from ...core.net.identity import client_context  # with cryptography: a command that asks nobody starts sooner

    try:
        return RouterLink(router.private_url, client_context(run.router_identity_path))
    except SlurminferError:  # the router has just ended, or the file is not ours to believe
        return None


def ask_router(run: RunDirectory, router: RouterRecord | None, *paths: str) -> list[Any] | None:
    """What the router says at these paths, as JSON; None where it does not answer, or is not ours.

    Raises RunDirectoryError where the deployment's key cannot be read.
    """
    link = router_link(run, router)
    if link is None:
        return None
    import httpx

    headers = {"Authorization": f"Bearer {run.key()}"}
    try:
        with httpx.Client(verify=link.tls, timeout=_ANSWERS_S, trust_env=False, headers=headers) as client:
            return [client.get(f"{link.url}{path}").raise_for_status().json() for path in paths]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None


def workers_by_id(page: Any) -> Mapping[str, Mapping[str, Any]] | None:
    """The workers of the router's page /workers; None where it is no such page."""
    try:
        return {worker["id"]: worker for worker in page["workers"]}
    except (KeyError, TypeError):
        return None
