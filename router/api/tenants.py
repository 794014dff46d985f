"""GET /tenants: limits and usage of all for the deployment's own key, of itself for a tenant."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..tenants.tenant import Tenant, Usage
from .caller import Caller
from .sources import Sources


def tenants(sources: Sources, caller: Caller) -> web.Response:
    """Those that the caller may see."""
    return web.json_response({"tenants": entries(sources, caller)})


def entries(sources: Sources, caller: Caller) -> list[dict[str, Any]]:
    """Limits and usage by tenant. One whose key was revoked has usage only."""
    usage, today = sources.usage(), sources.tokens_today()
    known = {tenant.name: tenant for tenant in sources.tenants() if not tenant.metrics_only}
    names = sorted({*known, *usage}) if caller.is_admin else [name for name in known if name == caller.tenant]
    return [_entry(name, known.get(name), usage, today) for name in names]


def _entry(name: str, tenant: Tenant | None, usage: Mapping[str, Usage], today: Mapping[str, int]) -> dict[str, Any]:
    used = usage.get(name) or Usage()
    limits = {
        "priority": tenant.priority.name.lower(),
        "weight": tenant.weight,
        "requests_per_minute": tenant.requests_per_minute,
        "tokens_per_day": tenant.tokens_per_day,
        "account": tenant.account,
    } if tenant is not None else {"revoked": True}  # fmt: skip
    return {"name": name, **limits, "tokens_today": today.get(name, 0), **_counts(used)}


def _counts(used: Usage) -> dict[str, int]:
    return {name: getattr(used, name) for name in used.__struct_fields__}
