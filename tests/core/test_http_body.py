"""Bodies: whole, compressed, broken, too large."""

import asyncio
import gzip
import sys
import zlib
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from slurminfer.core.net.compression import BodyError, decompressed
from slurminfer.core.net.http_body import read_body

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"prompt": "foxes"}' * 50


class Body:
    """A request's content that comes in pieces."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = [*pieces, b""]

    async def readany(self) -> bytes:
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece


def _read(
    *pieces: bytes | Exception, encoding: str | None = None, most: int = 10_000, length: int | None = None
) -> bytes:
    headers = {} if encoding is None else {"Content-Encoding": encoding}
    if length is not None:
        headers["Content-Length"] = str(length)
    payload: Any = Body(*pieces)
    return asyncio.run(read_body(make_mocked_request("POST", "/", headers=headers, payload=payload), most))


SKIPPED = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"  # a frame that has no content
# A frame that needs more memory than HTTP allows.
WIDE = zstd.compress(bytes(2**24 + 1), options={zstd.CompressionParameter.window_log: 24})


def _raw_deflate(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (None, TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZip", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", _raw_deflate(TEXT)),
        ("zstd", zstd.compress(TEXT)),
        ("ZSTD", zstd.compress(TEXT[:100]) + SKIPPED + zstd.compress(b"") + zstd.compress(TEXT[100:])),
    ],
)
def test_a_body_is_read_and_decompressed(encoding, body):
    assert _read(body, encoding=encoding) == TEXT
    assert _read(*(body[i : i + 1] for i in range(len(body))), encoding=encoding) == TEXT


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate", "zstd"])
def test_an_empty_body_is_empty(encoding):
    assert _read(encoding=encoding) == b""


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"abcd", 400),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-8], 400),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"abcd", 400),
        ("deflate", b"abcd", 400),
        ("deflate", zlib.compress(TEXT) + b"x", 400),
        ("deflate", zlib.compress(TEXT)[:-5], 400),
        ("zstd", b"abcd", 400),
        ("zstd", zstd.compress(TEXT)[:-1], 400),
        ("zstd", zstd.compress(TEXT)[:5], 400),
        ("zstd", zstd.compress(TEXT) + b"abcd", 400),
        ("zstd", WIDE, 400),
        ("br", b"abcd", 415),
        ("gzip, gzip", b"abcd", 415),
        ("x" * 5000, b"abcd", 415),
    ],
)
def test_a_body_that_is_not_what_its_head_says_is_the_clients_error(encoding, body, status):
    with pytest.raises(BodyError) as refused:
        _read(body, encoding=encoding)
    assert refused.value.status == status
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(("encoding", "part"), [("zstd", zstd.compress(b"")), ("gzip", gzip.compress(b"", mtime=0))])
def test_a_body_of_very_many_parts_is_refused(encoding, part):
    """Each takes a decompressor of its own, and time, however short it is."""
    assert _read(part * 2000, encoding=encoding, most=100_000) == b""
    with pytest.raises(BodyError, match=r"too many \w+ \w+: expected at most 2000") as refused:
        _read(part * 2001, encoding=encoding, most=100_000)
    assert refused.value.status == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", None])
def test_a_body_is_read_up_to_its_bound_only(encoding):
    pack: dict[str | None, Any] = {None: bytes, "gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
    most = pack[encoding]
    assert len(_read(most(bytes(10_000)), encoding=encoding)) == 10_000
    with pytest.raises(BodyError, match="at most 10000") as refused:
        _read(most(bytes(10_001)), encoding=encoding)
    assert refused.value.status == 413


def test_a_body_whose_head_says_too_much_is_not_read():
    with pytest.raises(BodyError, match="the body has 10001 bytes: expected at most 10000"):
        _read(ValueError("read"), length=10_001)


def test_a_body_that_breaks_off_is_the_clients_error():
    with pytest.raises(BodyError, match="cannot be read: bad chunk"):
        _read(b"abc", web.RequestPayloadError("bad chunk"))


def test_members_of_gzip_are_read_without_copying_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    make = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._stream = make(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            given.append(len(data))
            return self._stream.decompress(data, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    body = gzip.compress(bytes(range(256))) * 1999 + gzip.compress(TEXT)
    assert _read(body, encoding="gzip", most=1_000_000)[-len(TEXT) :] == TEXT
    assert max(given) <= 2**16 < len(body)


def test_a_bomb_is_decompressed_no_further_than_its_bound():
    bomb = zstd.compress(bytes(2**30))  # 1 GiB in 33 KiB: one step of what is read
    taken: list[int] = []
    with pytest.raises(BodyError, match="at most 10000"):
        asyncio.run(decompressed(bomb, "zstd", 10_000, taken.append))
    assert len(bomb) < 2**16 and sum(taken) <= 2**20
