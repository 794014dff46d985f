"""Who may ask for what: keys, and pages of other origins (CORS)."""

import hashlib
from collections.abc import Collection, Iterable

from ...core.net.cors import Origins
from ...core.net.openai import REQUEST_ID_HEADER, bearer_key
from ..endpoints import TOKENIZER_INFO
from ..http.heads import has_content
from ..http.messages import Head, Whole
from ..tenants.refusal import EXPECTED_KEY, METRICS_ONLY
from ..tenants.tenant import Tenant
from .answers import failure
from .paths import is_generation_path

_LIMITS = [f"X-Ratelimit-{what}-{of}" for of in ("Requests", "Tokens") for what in ("Limit", "Remaining", "Reset")]
_EXPOSED = (REQUEST_ID_HEADER, "Request-Id", "Retry-After", "X-Should-Retry", "X-Slurminfer-Worker", *_LIMITS)
_ADMINS_ONLY = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})  # of vLLM
_UPLOADS = frozenset({"/v1/files"})
_OPEN_PATHS = frozenset({"/", "/docs", "/health", "/openapi.json"})


class Keys:
    """The tenants by their keys' SHA-256: a lookup by digest tells nothing of a key by the time that it takes."""

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        found = list(tenants)
        self._by_digest = {bytes.fromhex(tenant.digest): tenant for tenant in found}
        self._by_name = {tenant.name: tenant for tenant in found if not tenant.metrics_only}

    def named(self, name: str) -> Tenant | None:
        """The tenant with that name; None where there is none any more."""
        return self._by_name.get(name)

    def tenant(self, head: Head) -> Tenant | None:
        """Whose key a request shows; None where there is none, or one that nobody has."""
        key = given_key(head)
        return None if key is None else self._by_digest.get(hashlib.sha256(key).digest())


def given_key(head: Head) -> bytes | None:
    """The key that a request shows, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; None where there is none.

    The second one counts beside an Authorization of another scheme, which may be for a proxy in between.
    """
    value = head.fields.get(b"authorization")
    if value is not None:
        if value[:7] == b"Bearer ":
            return value[7:].strip()
        key = bearer_key(value.decode("utf-8", "surrogateescape"))
        if key or b"x-api-key" not in head.fields:
            return key
    given = head.fields.get(b"x-api-key")
    return None if given is None else given.strip()


def no_key(head: Head, tenant: Tenant | None) -> Whole:
    """The refusal of a request without a valid key, or with the key for metrics (`tenant`); its connection ends."""
    answer = failure(401, METRICS_ONLY if tenant else _why_no_key(head), code="invalid_api_key")
    answer.headers.append((b"www-authenticate", b"Bearer"))
    answer.close = True
    return answer


def _why_no_key(head: Head) -> str:
    given = given_key(head)
    if given:
        return "wrong API key: this deployment has no such key; its own is in the file 'key' of its run directory"
    if given is None and b"authorization" not in head.fields:
        return f"missing API key: {EXPECTED_KEY}"
    return f"no API key in the header: {EXPECTED_KEY}"


def is_for_admins(head: Head) -> bool:
    """Whether a request changes what an engine serves, for everybody: it loads what its path on the disk names."""
    return head.path in _ADMINS_ONLY


def not_for_tenants(head: Head) -> Whole:
    """The refusal of such a request of somebody else."""
    return failure(403, f"{head.path} is for the deployment's own key", code="admin_key_required")


def no_such_tenant(name: str) -> Whole:
    """The refusal of a request that was sent for a tenant whose key was revoked."""
    return failure(401, f"tenant {name[:100]!r} has no key any more", code="invalid_api_key")


def is_generation(head: Head) -> bool:
    """Whether a request is for workers."""
    if head.method == b"POST":
        return is_generation_path(head.path)
    return head.method == b"GET" and head.path == TOKENIZER_INFO


def is_upload(head: Head) -> bool:
    """Whether a request may have a body that is too large to be held."""
    return head.method == b"POST" and head.path in _UPLOADS


def is_open(head: Head) -> bool:
    """Whether nobody needs a key for a request: one without a body, as nobody's bodies may fill the router's memory."""
    return head.path in _OPEN_PATHS and head.method in (b"GET", b"HEAD") and not has_content(head.fields)


def origins(allowed: Collection[str]) -> Origins:
    """Which pages of other origins may use the endpoint, and read what every answer of ours has."""
    return Origins(allowed, _EXPOSED)


def preflight(origins: Origins, head: Head) -> Whole:
    """The answer to OPTIONS, for which nobody needs a key."""
    fields = head.fields
    asked = fields.get(b"access-control-request-headers")
    is_private = b"access-control-request-private-network" in fields
    return Whole(204, b"", origins.preflight(fields.get(b"origin"), asked, is_private_network=is_private))
