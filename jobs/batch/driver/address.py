"""Where an endpoint is."""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from ....core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is, and how it proves itself."""

    url: str  # http(s)://HOST:PORT, with or without /v1
    tls: ssl.SSLContext | None = None  # None: as the web does, for an https URL

    @property
    def root(self) -> str:
        """The part of the URL before /v1."""
        return self.url.rstrip("/").removesuffix("/v1")


def check_url(url: str) -> None:
    """Raise UsageError for what is not the address of an endpoint."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and parts.username is None
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise UsageError(f"endpoint = {url!r}: expected a URL such as http://HOST:PORT/v1")


def check_key(key: str | None) -> None:
    """Raise UsageError for a key that no HTTP header can hold."""
    if key is not None and not (key.isascii() and key.isprintable()):
        raise UsageError("the API key has characters that are not printable ASCII, such as the end of a line")
