"""What our engine and the router have in common of OpenAI's API: the shape of errors, and how a key is shown."""

from typing import Any

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


def bearer_key(authorization: str) -> bytes:
    """KEY of the header `Authorization: Bearer KEY`; empty for another scheme. Its case is free (RFC 9110, 11.1).

    The header may hold any bytes, decoded with `surrogateescape` as aiohttp does. Compare with `hmac.compare_digest`.
    """
    scheme, _, given = authorization.strip().partition(" ")
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == "bearer" else b""
