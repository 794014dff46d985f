"""Random connections of hostile clients: what is sent on each, in which pieces, and how the client goes.

Each request says in X-Request-Id who it is. The ids of those that show the key are noted: a worker must see no other.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

_BYTE_BY_BYTE = 60
KEPT = b"X-Request-Id: "  # mutations leave this line alone, and it comes first


class Going(Enum):
    """How a client goes."""

    ANSWERED = "when the server has closed the connection"
    HALF_CLOSED = "it ends its side, and waits for the server's end"
    CLOSED = "at once"
    RESET = "by a reset"


@dataclass(frozen=True, slots=True)
class Session:
    """What one client sends. Without a key it may see nothing of the deployment."""

    pieces: tuple[bytes, ...]
    going: Going
    has_key: bool

    @property
    def must_end(self) -> bool:
        """Whether the server has to close the connection."""
        return self.going in (Going.ANSWERED, Going.HALF_CLOSED)


_PATHS = (b"/v1/completions", b"/v1/chat/completions", b"/v1/embeddings", b"/v1/responses")
_PAGES = (b"/v1/models", b"/v1/models/canary-model", b"/workers", b"/metrics", b"/status.json", b"/tenants")
_ODD_TARGETS = (
    b"/v1/../v1/completions", b"/v1/%2e%2e/completions", b"//v1/completions", b"/v1//completions", b"/V1/completions",
    b"/v1/completions/", b"/v1/completions?x=1", b"/v1/completions;a", b"/v1/complet\xc3\xadons", b"/v1/%00completions",
    b"/v1/%0d%0aX-Api-Key:%20x", b"/v1/models/../completions", b"/health/../v1/completions", b"/health?/v1/completions",
    b"/health%2f..%2fworkers", b"/%68ealth", b"/%77orkers", b"/health/", b"/.", b"", b"*", b"http://x/v1/completions",
    b"https://x:99999/workers", b"http://x@y/workers", b"HTTP://X/health", b"ftp://x/", b"x:80", b"/" + b"a" * 9000,
    b"/v1/models/" + b"%2f" * 500, b"/workers#", b"/v1/completions HTTP/1.1", b"/status.json?X-Slurminfer-Admin=1",
)  # fmt: skip
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PURGE", b"get",
            b"PROPFIND", b"M-SEARCH", b"SOURCE", b"QUERY", b"PRI", b"G\x00ET")  # fmt: skip
_VERSIONS = (b"HTTP/1.1",) * 12 + (
    b"HTTP/1.0",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"HTTP/11",
    b"http/1.1",
    b"",
)
_FRAMING = (
    (b"Content-Length: %d", b"Transfer-Encoding: chunked"), (b"Transfer-Encoding: chunked", b"Content-Length: %d"),
    (b"Content-Length: %d", b"Content-Length: 0"), (b"Content-Length: %d", b"Content-Length: %d"),
    (b"Content-Length: %d, %d",), (b"Content-Length: -%d",), (b"Content-Length: +%d",), (b"Content-Length: 0x%x",),
    (b"Content-Length: %d000000000000000000000",), (b"Content-Length: 18446744073709551616",),
    (b"Content-Length: 2e1",),
    (b"Content-Length : %d",), (b"Content-Length:\t%d",), (b"Content-Length:%d ",), (b"Content-Length: 0%d",),
    (b"Content_Length: %d",), (b"Content-Length: ",), (b"Content-Length: 1 %d",), (b"Content-Length: 5000000000",),
    (b"Transfer-Encoding: xchunked",), (b"Transfer-Encoding : chunked",), (b"Transfer-Encoding:\x0bchunked",),
    (b"Transfer-Encoding: chunked, identity",), (b"Transfer-Encoding: identity, chunked",),
    (b"Transfer-Encoding: gzip, chunked",), (b"Transfer-Encoding: CHUNKED",), (b"Transfer-Encoding: \"chunked\"",),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), (b"Transfer-Encoding:\r\n chunked",),
    (b"Transfer-Encoding: chunked\x00",), (b"X: y\nTransfer-Encoding: chunked",),
    (b"X: y\rTransfer-Encoding: chunked",),
    (b" Transfer-Encoding: chunked",), (b"X:y\r\n\tContent-Length: %d",), (b"Transfer-Encoding: chunked;q=1",),
    (b"Connection: Content-Length", b"Content-Length: %d"), (b"Connection: Transfer-Encoding, X-Request-Id",),
    (b"Trailer: Content-Length", b"Transfer-Encoding: chunked"),
)  # fmt: skip
_HEADERS = (
    b"X-Slurminfer-Tenant: owner", b"X-Slurminfer-Admin: 1", b"X-Slurminfer-Private: 1", b"X-Slurminfer-Worker: x",
    b"Expect: 100-continue", b"Expect: 200-maybe", b"Expect:", b"Connection: close, keep-alive",
    b"Connection: authorization", b"Connection: x-request-id, host",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAA", b"HTTP2-Settings: AAMAAABkAAQA",
    b"X: a\r\n folded", b"X: a\x00b", b"X: a\rb", b"X: a\nb", b"X\x00: a", b": a", b"X", b"X: " + b"y" * 9000,
    b"X: \xff\xfe", b"\xc3\xa9: a", b"Host: a\r\nHost: b", b"Content-Encoding: gzip", b"Content-Encoding: br",
    b"Content-Type: multipart/form-data; boundary=x", b"Content-Type: \x80", b"Accept-Encoding: *;q=0",
    b"X-Priority: interactive", b"X-Priority: root", b"X-Priority: \xff", b"X-Session-Id: " + b"s" * 4000,
    b"Origin: null", b"Origin: http://x\x7f", b"Access-Control-Request-Headers: a\tb", b"Range: bytes=0-",
    b"X-Http-Method-Override: GET", b"X-Original-Url: /workers", b"X-Forwarded-For: 127.0.0.1", b"Te: trailers",
    b"Keep-Alive: timeout=-1", b"Proxy-Authorization: Basic eDp5", b"Cookie: a=b", b"Date: x", b"Via: 1.1 x",
)  # fmt: skip
_WRONG_KEYS = (
    b"", b"Authorization: Bearer wrong", b"Authorization: Bearer", b"Authorization: Basic a2V5", b"X-Api-Key: wrong",
    b"Authorization: Bearer \xff\xfe", b"Authorization: Bearer " + b"k" * 5000, b"X-Api-Key:", b"Authorization:",
    b"Authorization: Bearer wrong\r\nX-Api-Key: wrong", b"Authorization: bearer\twrong", b"Authorization: Bearer None",
)  # fmt: skip
_PREFACES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(27), b"GET /\r\n", b"GET / HTTP/1.1\n\n", b"\r\n" * 200, b"\x00" * 300,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-2.0-x\r\n", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"\x05\x01\x00", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 300,
)  # fmt: skip


class Sessions:
    """An endless supply; the same seed gives the same ones. `keyed`: ids of the requests that show the key."""

    def __init__(self, seed: int, key: str) -> None:
        self._random, self._key = random.Random(seed), key.encode()
        self._number = 0
        self.keyed: set[str] = set()

    def __iter__(self) -> Iterator[Session]:
        return self

    def __next__(self) -> Session:
        has_key = self._chance(0.5)
        makers: tuple[Callable[[bool], bytes], ...] = (
            self._good, self._good, self._smuggling, self._odd_header, self._odd_target, self._mutated, self._chunks,
        )  # fmt: skip
        parts = [self._one_of(*makers)(has_key) for _ in range(self._one_of(1, 1, 1, 2, 3, 12))]
        if self._chance(0.1):
            parts.insert(self._random.randrange(len(parts) + 1), self._one_of(*_PREFACES))
        if self._chance(0.05):
            parts.append(self._random.randbytes(self._random.randrange(1, 400)))
        going = self._one_of(Going.ANSWERED, *Going)
        if (
            going is Going.ANSWERED
        ):  # whatever the server makes of it, either it has refused something or it answers this
            parts = [self._good(has_key) for _ in range(self._one_of(1, 1, 2, 8))]
            parts.append(self._request(b"GET", b"/health", False, [b"Connection: close"]))
        return Session(self._cut(b"".join(parts)), going, has_key)

    # Messages.

    def _good(self, has_key: bool) -> bytes:
        if self._chance(0.2):
            return self._request(b"GET", self._one_of(*_PAGES, b"/health", b"/"), has_key, [])
        body = self._json()
        if self._chance(0.3):
            return self._request(
                b"POST", self._one_of(*_PATHS), has_key, [b"Transfer-Encoding: chunked"], self._chunked(body)
            )
        return self._request(b"POST", self._one_of(*_PATHS), has_key, [b"Content-Length: %d" % len(body)], body)

    def _smuggling(self, has_key: bool) -> bytes:
        """A request whose length may be read in two ways, and in its body another one without a key."""
        inner = self._request(b"POST", b"/v1/completions", False, [b"Content-Length: 2"], b"{}")
        before = self._one_of(b"", b"0\r\n\r\n", b"%x\r\n" % len(inner), self._json(), b"1\r\nx\r\n0\r\nX: y\r\n\r\n")
        body = before + inner
        lines = [line % ((len(body),) * line.count(b"%")) for line in self._one_of(*_FRAMING)]
        if self._chance(0.5):
            lines.append(b"Content-Type: multipart/form-data; boundary=x")
        return self._request(b"POST", self._one_of(*_PATHS), has_key, lines, body)

    def _odd_header(self, has_key: bool) -> bytes:
        body = self._json()
        lines = [self._one_of(*_HEADERS) for _ in range(self._one_of(1, 1, 2, 4))]
        lines += [b"Content-Length: %d" % len(body)] * self._one_of(1, 1, 1, 0)
        lines += [b"X-%d: y" % number for number in range(self._one_of(*[0] * 20, 99, 101, 2000))]
        self._random.shuffle(lines)
        if self._chance(0.3):
            return self._request(b"GET", self._one_of(*_PAGES, b"/health"), has_key, lines)
        return self._request(b"POST", self._one_of(*_PATHS), has_key, lines, body)

    def _odd_target(self, has_key: bool) -> bytes:
        method, version = self._one_of(b"POST", b"GET", *_METHODS), self._one_of(*_VERSIONS)
        target = self._one_of(*_ODD_TARGETS, *_PATHS, *_PAGES)
        body = self._one_of(b"", self._json())
        return self._request(method, target, has_key, [b"Content-Length: %d" % len(body)], body, version)

    def _chunks(self, has_key: bool) -> bytes:
        """A body in chunks, with something wrong about them."""
        whole = self._chunked(self._json())
        at = self._random.randrange(len(whole))
        odd = self._one_of(
            b"-1\r\n", b"0x5\r\n", b"fffffffffffffffff\r\n", b"5 \r\nabcde\r\n", b"5;" + b"e" * 3000 + b"\r\nabcde\r\n",
            b"5\nabcde\n", b"\r\n", b"g\r\n", b"0\r\nContent-Length: 5\r\nX-Request-Id: trailer\r\n\r\n",
            b"00000000\r\n",
            b"5\r\nabcdefg\r\n", b"", b"0\r\n" + b"X: y\r\n" * 3000 + b"\r\n", b"+5\r\nabcde\r\n",
            b"7fffffffffffffff\r\n",
        )  # fmt: skip
        body = whole[:at] + odd + whole[at:] if self._chance(0.5) else odd
        return self._request(b"POST", self._one_of(*_PATHS), has_key, [b"Transfer-Encoding: chunked"], body)

    def _mutated(self, has_key: bool) -> bytes:
        """A good request with some bytes changed; who it is stays."""
        whole = bytearray(self._good(has_key))
        start = whole.index(KEPT)
        end = whole.index(b"\r\n", start) + 2
        for _ in range(self._one_of(1, 1, 2, 5)):
            at = self._one_of(self._random.randrange(start), self._random.randrange(end, len(whole) + 1))
            how = self._one_of("change", "insert", "delete", "double")
            if how == "change" and at < len(whole):
                whole[at] = self._random.randrange(256)
            elif how == "insert":
                whole[at:at] = self._one_of(
                    self._random.randbytes(3), b"\r\n", b"\r\n\r\n", b"\n", b"\0", b" ", b"\r", b":"
                )
            elif how == "delete" and at >= end:
                del whole[at : at + self._random.randrange(1, 10)]
            elif how == "double" and at >= end:
                whole[at:at] = whole[end:at]
            start = whole.index(KEPT)
            end = whole.index(b"\r\n", start) + 2
        return bytes(whole)

    # Their parts.

    def _request(
        self,
        method: bytes,
        target: bytes,
        has_key: bool,
        lines: list[bytes],
        body: bytes = b"",
        version: bytes = b"HTTP/1.1",
    ) -> bytes:
        self._number += 1
        name = f"{'keyed' if has_key else 'open'}-{self._number}"
        if has_key:
            self.keyed.add(name)
            key = self._one_of(b"Authorization: Bearer " + self._key, b"X-Api-Key: " + self._key)
        else:
            key = self._one_of(*_WRONG_KEYS)
        head = [method + b" " + target + b" " + version, KEPT + name.encode(), b"Host: x"]
        rest = [line for line in (key, *lines) if line]
        if self._chance(0.3):
            rest.reverse()
        return b"\r\n".join([*head, *rest, b"", b""]) + body

    def _json(self) -> bytes:
        stream = self._one_of(b"", b',"stream":true')
        limit = self._one_of(b"1", b"3", b"-1", b"1" * 40, b"null")
        model = self._one_of(*[b"canary-model"] * 6, b"nobody")
        prompt = self._one_of(b"a", b"a b " * 50, b"x" * 30_000, b"POST /v1/completions HTTP/1.1")
        return b'{"model":"%b","prompt":"%b","max_tokens":%b%b}' % (model, prompt, limit, stream)

    def _chunked(self, body: bytes) -> bytes:
        size = self._random.randrange(1, len(body) + 1) if self._chance(0.9) or len(body) > 500 else 1
        size = max(size, len(body) // 50)
        extension = self._one_of(b"", b"", b";a=b", b';a="b;c"')
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        trailer = self._one_of(
            b"", b"", b"X-Trailer: y\r\n", b"Authorization: Bearer wrong\r\n", b"Content-Length: 9\r\n"
        )
        return (
            b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n" + trailer + b"\r\n"
        )

    def _cut(self, data: bytes) -> tuple[bytes, ...]:
        """Pieces that are sent one by one: mostly a few, sometimes every byte of a part."""
        if self._chance(0.1):
            start = self._random.randrange(len(data))
            end = min(start + _BYTE_BY_BYTE, len(data))
            return (data[:start], *(data[at : at + 1] for at in range(start, end)), data[end:])
        cuts = sorted(self._random.randrange(len(data) + 1) for _ in range(self._one_of(0, 0, 1, 3, 8)))
        return tuple(data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _one_of(self, *values: Any) -> Any:
        return self._random.choice(values)
