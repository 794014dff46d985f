"""What our engine and the router share of OpenAI's API: the shape of errors, request ids, and how a key is shown."""

import itertools
import secrets
import string
from typing import Any

REQUEST_ID_HEADER = "X-Request-Id"
PRIORITY_HEADER = "X-Priority"  # interactive, default or batch
# With the deployment's own key: the tenant whose request this is, by name.
ON_BEHALF_HEADER = "X-Slurminfer-On-Behalf-Of"
# The code of the router's answer to a request under which it has lost as many workers as a request may cost.
WORKER_LOST = "worker_lost"
UNKNOWN_PATH = "unknown_url"  # the code of errors about a path, in OpenAI's API too
_LONGEST_ID = 128
# An id of this process and a number: random ones would cost a system call each.
_new_ids = map(f"{secrets.token_hex(10)}%012x".__mod__, itertools.count(1))
_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON body of an error answer; `status` is the HTTP status that goes with it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def request_id(given: str) -> str:
    """The id of a request: the client's own, if it is short and printable, or a new one."""
    if given and len(given) <= _LONGEST_ID and _ID_CHARACTERS.issuperset(given):
        return given
    return next(_new_ids)


def bearer_key(authorization: str) -> bytes:
    """KEY of the header `Authorization: Bearer KEY`; empty for another scheme. Its case is free (RFC 9110, 11.1).

    The header may hold any bytes, decoded with `surrogateescape` as aiohttp does. Compare with `hmac.compare_digest`.
    """
    scheme, _, given = authorization.strip().partition(" ")
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == "bearer" else b""
