"""Whose request it is. Relays have looked at the key, and say so in headers that no client can send this far."""

from dataclasses import dataclass

from aiohttp import web

_TENANT, _ADMIN = "X-Slurminfer-Tenant", "X-Slurminfer-Admin"


@dataclass(frozen=True)
class Caller:
    """Who asks. Without a tenant: somebody who has shown no key."""

    tenant: str | None
    is_admin: bool = False


def caller_of(request: web.Request) -> Caller:
    """The caller that the relay names."""
    headers = request.headers
    tenant = headers.get(_TENANT)
    return Caller(tenant, tenant is not None and headers.get(_ADMIN) == "1")
