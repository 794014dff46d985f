"""Which pages of other origins may use an endpoint, and what browsers are told of it (Fetch standard, CORS).

Browsers ask; nothing else is kept out. Cookies are never allowed (Access-Control-Allow-Credentials): pages show a key.
"""

from collections.abc import Collection, Iterable

from ..spec.patterns import WILDCARD, fits

Headers = list[tuple[bytes, bytes]]

_METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"
_USUAL_HEADERS = b"Authorization, Content-Type"
_PREFLIGHT_S = b"600"  # for which a browser may keep the answer; some keep none for longer


class Origins:
    """The origins that are allowed, by patterns such as `http://localhost:*`; `*` alone is any.

    Anybody may ask, without a key and with an origin of several kilobytes: so the time grows with its length only.
    """

    def __init__(self, allowed: Collection[str], exposed: Iterable[str]) -> None:
        """`exposed`: the headers of answers that pages may read."""
        self._allowed = [pattern.lower() for pattern in allowed]
        self._exposed = ", ".join(exposed).encode()

    def allow(self, origin: bytes) -> bool:
        """Whether pages of `origin`, such as https://chat.example.org, may use the endpoint."""
        given = origin.decode("latin-1").lower()
        slashes = given.count("/")
        return any(
            pattern == WILDCARD or (pattern.count("/") == slashes and fits(pattern, given)) for pattern in self._allowed
        )

    def preflight(self, origin: bytes | None, asked: bytes | None, *, is_private_network: bool) -> Headers:
        """What OPTIONS is answered with, besides `headers`. A browser sends it before a page's request, without a key.

        Args:
            origin: the header Origin; None where there is none, and no browser asks for a page.
            asked: Access-Control-Request-Headers.
            is_private_network: whether Access-Control-Request-Private-Network is there: the page comes from the
                internet and the endpoint is in a private network.
        """
        if origin is None or not self.allow(origin):
            return []
        found = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", asked or _USUAL_HEADERS),
            (b"access-control-max-age", _PREFLIGHT_S),
        ]
        if is_private_network:
            found.append((b"access-control-allow-private-network", b"true"))
        return found

    def headers(self, origin: bytes | None) -> Headers:
        """The headers of an answer by which a page may read it."""
        if origin is None:
            return []
        found = [(b"vary", b"Origin")]
        if self.allow(origin):
            found.append((b"access-control-allow-origin", origin))
            found.append((b"access-control-expose-headers", self._exposed))
        return found
