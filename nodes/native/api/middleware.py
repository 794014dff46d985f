"""What happens to every request: an id, errors in OpenAI's shape."""

from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec
from aiohttp import web

from ....core.net.openai import REQUEST_ID_HEADER, UNKNOWN_PATH, error_body, request_id
from ....core.net.openai_paths import canonical_path
from ..tracebacks import TracebackLog
from .errors import ApiError, short

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SIMILAR = 0.9  # of a path: "/v1/chat/completion"
_RETRY_AFTER = {"Retry-After": "1"}
_BEGUN = web.RequestKey("begun", bool)  # the head of the answer has been sent
_LOG = TracebackLog()


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer of JSON."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers or {}
    )


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Give an answer the id that its request came with, or one of our own. For `Application.on_response_prepare`."""
    request[_BEGUN] = True
    response.headers[REQUEST_ID_HEADER] = request_id(request.headers.get(REQUEST_ID_HEADER, ""))


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """All errors in OpenAI's shape, those of the HTTP library too."""
    try:
        return await handler(request)
    except ApiError as error:
        body = error_body(error.status, error.message, param=error.param, code=error.code)
        return json_response(body, status=error.status, headers=_RETRY_AFTER if error.status in (429, 503) else {})
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        code = UNKNOWN_PATH if error.status == 404 else None
        body = error_body(error.status, _explain(request, error), code=code)
        return json_response(body, status=error.status, headers=allowed)
    except Exception as error:  # a defect: whoever repairs it needs the traceback, and the client an answer
        if _BEGUN in request or isinstance(error, ConnectionError):
            raise
        _LOG.write(f"{request.method} {request.path} has failed, the engine goes on:", error)
        message = f"the engine failed on this request: {type(error).__name__}"
        return json_response(error_body(500, message, code="request_failed"), status=500)


def _explain(request: web.Request, error: web.HTTPException) -> str:
    asked = f"{request.method[:20]} {short(request.raw_path).strip(chr(34))}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{asked}: method not allowed; expected {' or '.join(sorted(error.allowed_methods))}"
    if isinstance(error, web.HTTPNotFound):
        paths = sorted({resource.canonical for resource in request.app.router.resources()})
        near = get_close_matches(canonical_path(request.path), paths, n=1, cutoff=_SIMILAR)
        hint = f"; {near[0]} is probably meant" if near else ""
        return f"{asked}: no such path{hint}; the engine has: {', '.join(paths)}"
    return f"{asked}: {error.reason}"
