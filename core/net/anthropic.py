"""What the router says in Anthropic's API: the shape of errors."""

from collections.abc import Mapping
from typing import Any

VERSION_HEADER = "anthropic-version"  # which Anthropic's clients send with every request

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_KNOWN = frozenset({*_TYPES.values(), "api_error", "billing_error", "timeout_error"})


def error_body(status: int, answer: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """The JSON body of an error answer.

    Args:
        status: the HTTP status that goes with it.
        answer: its body in the shape of OpenAI's API, of FastAPI, or in this one, which stays as it is.
        request_id: of the request.
    """
    if answer.get("type") == "error" and isinstance(answer.get("error"), dict):
        return {**answer, "request_id": answer.get("request_id") or request_id}
    usual = "invalid_request_error" if status < 500 else "api_error"
    return _body(_TYPES.get(status, usual), _message(answer), request_id)


def stream_error_body(answer: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """The data of an error event, by one of OpenAI's API, in a stream that has begun with status 200."""
    error = answer.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    kind = kind if isinstance(kind, str) and kind in _KNOWN else "api_error"
    return _body(kind, _message(answer), request_id)


def _body(kind: str, message: str, request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def _message(answer: Mapping[str, Any]) -> str:
    """What an error of one of several shapes says."""
    error = answer.get("error")
    found = error.get("message") if isinstance(error, dict) else error
    for value in (found, answer.get("message"), answer.get("detail")):
        if isinstance(value, str) and value:
            return value
    return f"the worker's answer is an error of an unknown form: {str(dict(answer))[:500]}"
