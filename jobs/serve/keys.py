"""`slurminfer keys`: the tenants of a deployment, running or stopped, and what they have used."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from ...core.errors import UsageError
from ...core.files import encode_json
from ...core.rundir import RunDirectory
from ...router.tenants.key_store import METRICS, OWNER, KeyRecord, KeyStore
from ...router.tenants.tenant import Usage
from ...router.tenants.usage_files import TenantUsage, day_of, read_usage, tokens_of
from ..terminal.console import stderr, stdout
from ..terminal.table import figures_table, text_table
from ..terminal.text import shown

_NONE = "none"  # as the value of an option, takes these away
_COUNTS = ("requests_per_minute", "tokens_per_day")
_REMOVABLE = (*_COUNTS, "account")


class TenantView(msgspec.Struct, kw_only=True):
    """A tenant as `keys list` shows it."""

    tenant: str
    state: str  # active; revoked, but it has used something; own: the deployment's key
    priority: str | None = None
    weight: float | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    account: str | None = None
    created: str | None = None  # UTC
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    tokens_today: int = 0  # prompt and generated, since midnight UTC


def require_tenants(run: RunDirectory) -> None:
    """Raises UsageError where the deployment's router knows its own key only."""
    if run.read_spec().router.backend == "sglang":
        raise UsageError(
            f"router.backend = 'sglang' in the spec of {run.path.name}: sglang-router takes the deployment's own key "
            "only; backend = 'native' has keys for several users"
        )


def print_new_key(run: RunDirectory, key: str) -> None:
    """Print a new key alone on stdout, for `$(...)`, and what to know about it on stderr."""
    print(key)
    stderr.print("This key is shown once: slurminfer keeps only its hash.")
    _print_when(run)


def change_key(run: RunDirectory, tenant: str, given: Mapping[str, str | float | None]) -> None:
    """Change what a tenant's key may do. `given`: options by their fields of a key, None where one was not given.

    Raises UsageError where there is nothing to change, for a value that cannot be, and for an unknown tenant.
    """
    changes = {name: _parsed(name, value) for name, value in given.items() if value is not None}
    if not changes:
        options = ", ".join(map(_option, given))
        raise UsageError(f"nothing to change for '{tenant}': expected at least one of {options}")
    KeyStore(run).change(tenant, **changes)
    stdout.print(f"key of '{tenant}' changed", markup=False)
    _print_when(run)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parsed(name: str, value: str | float) -> str | float | None:
    if name in _REMOVABLE and value == _NONE:
        return None
    if name not in _COUNTS or not isinstance(value, str):
        return value
    if not (value.isascii() and value.isdecimal()):
        expected = f"expected a whole number from 1 to 10^15, or '{_NONE}' for no limit"
        raise UsageError(f"{_option(name)} = {value!r}: {expected}")
    return int(value[:20])  # thousands of digits are as wrong as twenty


def _print_when(run: RunDirectory) -> None:
    if run.read_deployment() is not None:
        stderr.print("A running router knows it within two seconds.")


def print_tenants(run: RunDirectory, as_json: bool) -> None:
    """Print all tenants with what they have used. Raises RunDirectoryError for a damaged file."""
    views = tenants_of(KeyStore(run).read(), read_usage(run.usage_path), time.time())
    if as_json:
        print(encode_json(views), end="")
        return
    limits = text_table("tenant", "priority", "weight", "requests/min", "tokens/day", "account", "created")
    used = figures_table("tenant", "requests", "prompt", "cached", "generated", "tokens today")
    for view in views:
        if view.state != "revoked":
            limits.add_row(*_limit_cells(view))
        used.add_row(*_used_cells(view))
    stdout.print(limits)
    stdout.print()
    stdout.print(used)


def tenants_of(keys: list[KeyRecord], usage: dict[str, TenantUsage], now: float) -> list[TenantView]:
    """The deployment's own key, the keys that there are, then tenants that had one and have used something."""
    today = day_of(now)
    names = [key.tenant for key in keys]
    gone = [name for name in usage if name not in (*names, OWNER, METRICS)]
    return [
        _view(TenantView(tenant=OWNER, state="own", priority="interactive"), usage.get(OWNER), today),
        *(_view(_of_key(key), usage.get(key.tenant), today) for key in keys),
        *(_view(TenantView(tenant=name, state="revoked"), usage[name], today) for name in gone),
    ]


def _of_key(key: KeyRecord) -> TenantView:
    return TenantView(
        tenant=key.tenant,
        state="active",
        priority=key.priority,
        weight=key.weight,
        requests_per_minute=key.requests_per_minute,
        tokens_per_day=key.tokens_per_day,
        account=key.account,
        created=datetime.fromtimestamp(key.created_at, UTC).isoformat(timespec="seconds"),
    )


def _view(view: TenantView, used: TenantUsage | None, today: str) -> TenantView:
    if used is not None:
        for field in Usage.__struct_fields__:
            setattr(view, field, getattr(used.total, field))
        view.tokens_today = tokens_of(used.days.get(today) or Usage())
    return view


def _limit_cells(view: TenantView) -> list[str]:
    return [
        view.tenant,
        view.priority or "",
        "" if view.weight is None else f"{view.weight:g}",
        "" if view.requests_per_minute is None else f"{view.requests_per_minute:,}",
        "" if view.tokens_per_day is None else f"{view.tokens_per_day:,}",
        view.account or "",
        "" if view.created is None else view.created[:10],
    ]


def _used_cells(view: TenantView) -> list[str]:
    name = shown(view.tenant)  # of a file that only the router writes, but not checked
    used = (view.requests, view.prompt_tokens, view.cached_tokens, view.generated_tokens, view.tokens_today)
    return [f"{name} (revoked)" if view.state == "revoked" else name, *(f"{number:,}" for number in used)]
