"""Ids of files and batches: they sort by the time of creation, and show whose they are."""

import hashlib
import re
import secrets

FILE, BATCH = "file-", "batch_"

_ID = re.compile(r"(file-|batch_)(?P<made>[0-9a-f]{12})(?P<tenant>[0-9a-f]{8})[0-9a-f]{12}", re.ASCII)


def new_id(prefix: str, tenant: str, now: float) -> str:
    """A new id; `now` is in Unix seconds."""
    return _made(prefix, tenant, int(now * 1000), secrets.token_hex(6))


def derived_id(prefix: str, tenant: str, now: float, origin: str) -> str:
    """The id of what is made of `origin`: the same each time, so that making it twice makes one."""
    return _made(prefix, tenant, int(now * 1000), hashlib.sha256(origin.encode()).hexdigest()[:12])


def is_of(tenant: str, prefix: str, text: str) -> bool:
    """Whether a text is an id of that kind and, as far as an id shows it, one of that tenant."""
    found = _ID.fullmatch(text)
    return found is not None and found[1] == prefix and found["tenant"] == mark_of_tenant(tenant)


def is_id(prefix: str, text: str) -> bool:
    """Whether a text is an id of that kind: nothing else may become part of a path."""
    found = _ID.fullmatch(text)
    return found is not None and found[1] == prefix


def mark_of_tenant(tenant: str) -> str:
    """What ids show of whose they are. Two tenants may have the same."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:8]


def _made(prefix: str, tenant: str, milliseconds: int, rest: str) -> str:
    return f"{prefix}{milliseconds:012x}{mark_of_tenant(tenant)}{rest}"
