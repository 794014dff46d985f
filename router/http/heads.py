"""Heads of messages: what is forwarded of a request and of an answer, and how an answer's head is written."""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import compress
from operator import itemgetter
from urllib.parse import unquote

import httptools

from .messages import Headers

# What belongs to one connection (RFC 9110, 7.6.1) or is set anew for the next one.
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"content-length", b"x-request-id"}
)
# Of a request moreover what this router has dealt with, and the client's credentials.
_NOT_TO_WORKERS = _HOP | {b"host", b"content-encoding", b"accept-encoding", b"expect", b"authorization", b"x-api-key"}
_NOT_TO_CLIENTS = _HOP | {b"date", b"server"}
_OWN_PREFIX = b"x-slurminfer-"  # what the router tells its own pages; nobody else may
_CORS_PREFIX = b"access-control-"

BODILESS = frozenset({204, 304})  # the statuses of answers without a body (RFC 9110, 6.4.1)

# Method, target, host, length of the body, id.
_REQUEST = b"%b %b HTTP/1.1\r\nHost: %b\r\nAccept-Encoding: identity\r\n%b\r\nX-Request-Id: %b\r\n"
_REQUEST_LINES = _REQUEST.count(b"\n")
_SINGLE = frozenset({b"host", b"authorization", b"x-api-key", b"content-encoding"})
_name, _line = itemgetter(0), b": ".join


def request_head(
    method: bytes,
    target: bytes,
    headers: Headers,
    *,
    host: bytes = b"worker",
    key: str = "",
    body_length: int | None = 0,
    request_id: str = "",
) -> bytes:
    """The head of a request to a worker but for its blank line, with what may be forwarded of a client's `headers`.

    Further lines may be added at its end. `key` goes into Authorization, where there is one. A body of no known length
    (None) is to be sent in chunks. Raises ValueError where a part has a line break.
    """
    kept = _forwardable(headers, _NOT_TO_WORKERS, _OWN_PREFIX)
    types = [header for header in kept if header[0] == b"content-type"]
    if len(types) > 1:  # servers refuse that; the last one counts here too
        kept = [header for header in kept if header[0] != b"content-type"] + types[-1:]
    if key:
        kept.append((b"Authorization", b"Bearer " + key.encode("latin-1")))
    framing = b"Transfer-Encoding: chunked" if body_length is None else b"Content-Length: %d" % body_length
    head = _REQUEST % (method, target, host, framing, request_id.encode("latin-1")) + _lines(kept)
    _require_lines(head, _REQUEST_LINES + len(kept))
    return head


def answer_headers(headers: Headers) -> Headers:
    """The headers of a worker's answer that a client may get: those of one connection and CORS are left out."""
    return _forwardable(headers, _NOT_TO_CLIENTS, _CORS_PREFIX)


def content_length(headers: Headers) -> int | None:
    """What Content-Length says; None where there is none."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def has_content(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a request with these headers has a body, if only an empty one in chunks."""
    return b"transfer-encoding" in fields or fields.get(b"content-length", b"").strip(b"0") != b""


def answer_head(status: int, headers: Headers, extra: bytes) -> bytes:
    """The head of an answer with its blank line; `extra` are complete lines. Raises ValueError for line breaks."""
    lines = _lines(headers)
    _require_lines(lines, len(headers))
    return b"%b%b%b\r\n" % (_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, lines, extra)


def date_line() -> bytes:
    """The header Date for now."""
    return f"Date: {formatdate(usegmt=True)}\r\n".encode()


@lru_cache(maxsize=64)
def read_request_line(method: bytes, target: bytes, version: str) -> tuple[bytes, str]:
    """A request's target in origin form, and its path, decoded. Raises ValueError for what nobody should send."""
    if version not in ("1.0", "1.1"):
        raise ValueError("expected HTTP/1.1 or HTTP/1.0")
    if method == b"CONNECT":
        raise ValueError("this is no proxy: CONNECT")
    return split_target(method, target)


def split_target(method: bytes, target: bytes) -> tuple[bytes, str]:
    """A request's target in origin form, and its path, decoded. Raises ValueError for what is no target."""
    if target[:1] == b"/":
        origin = target
    elif target == b"*" and method == b"OPTIONS":
        return target, "*"
    else:
        origin = _origin_form(target)
    path = origin.partition(b"?")[0]
    if b"#" in origin:
        raise ValueError("a fragment in the request's target")
    text = path.decode("latin-1")
    return origin, unquote(text, errors="replace") if b"%" in path else text


def require_single(headers: Headers) -> None:
    """Raises ValueError for several hosts (RFC 9112, 3.2), keys or encodings.

    A proxy before this server may have taken another one of them than it does.
    """
    seen = set()
    for name, _ in headers:
        if name in _SINGLE and name in seen:
            raise ValueError(f"several headers {name.decode().title()}")
        seen.add(name)


def require_chunked(version: str, headers: Headers) -> None:
    """Raises ValueError for what llhttp lets pass and nobody should send."""
    if version == "1.0":
        raise ValueError("Transfer-Encoding in a request of HTTP/1.0")
    if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
        raise ValueError("Transfer-Encoding: expected chunked")


def _origin_form(target: bytes) -> bytes:
    """Path and query of an absolute target, as clients send it to proxies (RFC 9112, 3.2.2)."""
    if target[:7].lower() != b"http://" and target[:8].lower() != b"https://":
        raise ValueError("expected a request target that begins with /")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError as error:
        raise ValueError("invalid request target") from error
    path = url.path or b"/"
    return path if url.query is None else b"%b?%b" % (path, url.query)


def _forwardable(headers: Headers, left_out: frozenset[bytes], prefix: bytes) -> Headers:
    """`headers` without those `left_out`, those whose names have that `prefix`, and those that `Connection` names.

    The last ones belong to that connection, too.
    """
    names = tuple(map(_name, headers))
    kept = list(compress(headers, _may_pass(names, left_out, prefix)))
    if b"connection" not in names:
        return kept
    named = b",".join([value.lower() for name, value in headers if name == b"connection"])
    tokens = {token.strip() for token in named.split(b",")}
    return [header for header in kept if header[0] not in tokens]


@lru_cache(maxsize=256)  # a client's requests have the same headers mostly, in the same order
def _may_pass(names: tuple[bytes, ...], left_out: frozenset[bytes], prefix: bytes) -> list[bool]:
    return [name not in left_out and not name.startswith(prefix) for name in names]


def _lines(headers: Headers) -> bytes:
    return b"\r\n".join([*map(_line, headers), b""])


def _require_lines(head: bytes, count: int) -> None:
    """Raises ValueError where `head` has more than `count` lines, so that no value can smuggle one in."""
    if head.count(b"\n") != count or head.count(b"\r") != count:
        raise ValueError("a line break in a header")


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
