"""Heads of requests to workers, and headers of their answers to clients."""

from ..control.messages import WorkerView
from ..http.messages import Head, Headers

# What belongs to one connection (RFC 9110, 7.6.1).
_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade"}
)
# Besides that, what the relay sets itself, and the client's own credentials.
_NOT_SENT = _HOP | frozenset(
    {b"host", b"content-length", b"content-encoding", b"accept-encoding", b"expect", b"authorization", b"x-api-key"}
    | {b"x-request-id", b"x-slurminfer-tenant", b"x-slurminfer-admin", b"x-slurminfer-private"}
)
# The relay says itself how long an answer is. Workers answer uncompressed, because they are asked to.
_NOT_RETURNED = _HOP | frozenset({b"content-length", b"date", b"server", b"x-request-id"})


def worker_headers(view: WorkerView) -> bytes:
    """The headers that every request to a worker has."""
    return b"Host: worker\r\nAuthorization: Bearer %b\r\nAccept-Encoding: identity\r\n" % view.key.encode()


def request_headers(head: Head) -> bytes:
    """The headers of a client's request that go to a worker, with the request's id."""
    named = head.get(b"connection")
    dropped = _NOT_SENT if named is None else _NOT_SENT | named_by(named)
    lines = [b"%b: %b\r\n" % header for header in head.headers if header[0] not in dropped]
    return b"%bX-Request-Id: %b\r\n" % (b"".join(lines), head.id.encode("latin-1", "replace"))


def request_head(method: bytes, target: bytes, worker: bytes, client: bytes, length: int) -> bytes:
    """A whole head but for the blank line."""
    return b"%b %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n" % (method, target, worker, client, length)


def answer_headers(headers: Headers) -> Headers:
    """The headers of a worker's answer that its client may get."""
    dropped = _NOT_RETURNED
    for name, value in headers:
        if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            dropped = dropped | named_by(value)
    return [header for header in headers if header[0] not in dropped]


def named_by(connection: bytes) -> frozenset[bytes]:
    """The headers that the header Connection names: they belong to one connection too."""
    return frozenset(name.strip().lower() for name in connection.split(b","))


def value_of(headers: Headers, wanted: bytes) -> bytes:
    """The first header of that lower-case name; empty if there is none."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""
