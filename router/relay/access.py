"""Who may ask for what: keys, and pages of other origins (CORS)."""

import hashlib
import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from ...core.net.openai import REQUEST_ID_HEADER, bearer_key
from ..http.heads import has_content
from ..http.messages import Head, Headers, Whole
from ..tenants.refusal import METRICS_ONLY
from ..tenants.tenant import Tenant
from .answers import failure

_EXPOSED = f"{REQUEST_ID_HEADER}, Retry-After, X-Should-Retry, X-Slurminfer-Worker".encode()
_GENERATION = re.compile(r"/v1/(?!(?:models|files|batches)(?:/|$))[\w/-]+", re.ASCII)
_UPLOADS = frozenset({"/v1/files"})
_OPEN_PATHS = frozenset({"/", "/health", "/openapi.json"})
_PREFLIGHT_S = b"600"  # for which a browser may keep the answer; some keep none for longer


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
    """The key that a request shows, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; None where there is none."""
    value = head.fields.get(b"authorization")
    if value is None:
        given = head.fields.get(b"x-api-key")
        return None if given is None else given.strip()
    if value[:7] == b"Bearer ":
        return value[7:].strip()
    return bearer_key(value.decode("utf-8", "surrogateescape"))


def no_key(head: Head, tenant: Tenant | None) -> Whole:
    """The refusal of a request without a valid key, or with the key for metrics (`tenant`); its connection ends."""
    what = "missing" if given_key(head) is None else "wrong"
    message = METRICS_ONLY if tenant else f"{what} API key: expected the header 'Authorization: Bearer KEY'"
    answer = failure(401, message, code="invalid_api_key")
    answer.headers.append((b"www-authenticate", b"Bearer"))
    answer.close = True
    return answer


def no_such_tenant(name: str) -> Whole:
    """The refusal of a request that was sent for a tenant whose key was revoked."""
    return failure(401, f"tenant {name[:100]!r} has no key any more", code="invalid_api_key")


@lru_cache(maxsize=64)
def _is_generation_path(path: str) -> bool:
    return _GENERATION.fullmatch(path) is not None


def is_generation(head: Head) -> bool:
    """Whether a request is for workers: they alone know which paths below /v1/ there are."""
    return head.method == b"POST" and _is_generation_path(head.path)


def is_upload(head: Head) -> bool:
    """Whether a request may have a body that is too large to be held."""
    return head.method == b"POST" and head.path in _UPLOADS


def is_open(head: Head) -> bool:
    """Whether nobody needs a key for a request: one without a body, as nobody's bodies may fill the router's memory."""
    return head.path in _OPEN_PATHS and head.method in (b"GET", b"HEAD") and not has_content(head.fields)


class Origins:
    """The origins whose pages may use the endpoint (Fetch standard, CORS). Browsers ask; nothing else is kept out."""

    def __init__(self, allowed: Collection[str]) -> None:
        patterns = (
            re.escape(pattern.lower()).replace(r"\*", "[^/]*") if pattern != "*" else ".*" for pattern in allowed
        )
        self._allowed = re.compile("|".join(patterns) or "(?!)", re.DOTALL)

    def allow(self, origin: bytes) -> bool:
        """Whether pages of `origin`, such as https://chat.example.org, may use the endpoint."""
        return self._allowed.fullmatch(origin.decode("latin-1").lower()) is not None

    def preflight(self, head: Head) -> Whole:
        """What a browser is told before it sends a page's request. It sends no key then."""
        answer = Whole(204, b"")
        if self.allow(head.fields.get(b"origin", b"")):
            asked = head.fields.get(b"access-control-request-headers") or b"Authorization, Content-Type"
            answer.headers += [
                (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", _PREFLIGHT_S),
            ]
        return answer

    def headers(self, head: Head) -> Headers:
        """The headers of an answer by which a page may read it."""
        origin = head.fields.get(b"origin")
        if origin is None:
            return []
        found = [(b"vary", b"Origin")]
        if self.allow(origin):
            found.append((b"access-control-allow-origin", origin))
            found.append((b"access-control-expose-headers", _EXPOSED))
        return found
