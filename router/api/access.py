"""Who may ask for what: API keys, pages of other origins (CORS), and the id of each request."""

import hmac
import logging
import re
from collections.abc import Collection

from aiohttp import web

from ...core import openai
from ...core.errors import RunDirectoryError
from ...core.openai import REQUEST_ID_HEADER, bearer_key
from ...core.rundir import RunDirectory

_REQUEST_ID = web.RequestKey("request_id", str)
_EXPOSED = f"{REQUEST_ID_HEADER}, Retry-After, X-Should-Retry"
_PREFLIGHT_S = "600"  # for which a browser may keep the answer; some keep none for longer

_log = logging.getLogger(__name__)


class Keys:
    """The client's key, which opens everything, and that of scrapers, which opens `/metrics` only."""

    def __init__(self, client: str, metrics: str | None) -> None:
        self._client, self._metrics = client.encode(), metrics.encode() if metrics else None

    def fit(self, request: web.Request) -> bool:
        """Whether the request shows a key that opens its path."""
        given = given_key(request)
        if given is None:
            return False
        fits = hmac.compare_digest(given, self._client)
        if self._metrics is not None and request.path == "/metrics":
            fits |= hmac.compare_digest(given, self._metrics)
        return fits


def given_key(request: web.Request) -> bytes | None:
    """The key that a request shows, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; None where there is none."""
    if (authorization := request.headers.get("Authorization")) is not None:
        return bearer_key(authorization)
    given = request.headers.get("X-Api-Key")
    return None if given is None else given.strip().encode(errors="surrogateescape")


def metrics_key(run: RunDirectory) -> str | None:
    """The key in the run directory's `metrics.key`, which is made if it is missing; None where neither is possible."""
    try:
        return run.metrics_key()
    except RunDirectoryError as error:
        _log.warning("/metrics takes the client's key only: %s", error)
        return None


class Origins:
    """The origins whose pages may use the endpoint (Fetch standard, CORS). Browsers ask; nothing else is kept out."""

    def __init__(self, allowed: Collection[str]) -> None:
        patterns = (
            re.escape(pattern.lower()).replace(r"\*", "[^/]*") if pattern != "*" else ".*" for pattern in allowed
        )
        self._allowed = re.compile("|".join(patterns) or "(?!)", re.DOTALL)

    def allow(self, origin: str) -> bool:
        """Whether pages of `origin`, such as https://chat.example.org, may use the endpoint."""
        return self._allowed.fullmatch(origin.lower()) is not None

    def preflight(self, request: web.Request) -> web.Response:
        """What a browser is told before it sends a page's request. It sends no key then."""
        response = web.Response(status=204)
        if self.allow(request.headers.get("Origin", "")):
            asked = request.headers.get("Access-Control-Request-Headers", "Authorization, Content-Type")
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = asked
            response.headers["Access-Control-Max-Age"] = _PREFLIGHT_S
        return response

    def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Set the headers by which a page may read `response`, in place of those of a worker."""
        origin = request.headers.get("Origin")
        if origin is None:
            return
        if request.method != "OPTIONS":
            for name in [name for name in response.headers if name.lower().startswith("access-control-")]:
                del response.headers[name]
        response.headers["Vary"] = "Origin"
        if self.allow(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED


def name_request(request: web.Request) -> None:
    """Give a request its id: the client's, if it is short and printable, or a new one."""
    request[_REQUEST_ID] = openai.request_id(request.headers.get(REQUEST_ID_HEADER, ""))


def request_id(request: web.Request) -> str:
    """The id that `name_request` has given."""
    return request[_REQUEST_ID]
