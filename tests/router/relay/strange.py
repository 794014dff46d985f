"""Workers that answer as none should, and what a client must be able to make of whatever it gets."""

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import httpx

from .relayed import DONE, HEAD, LAST, TEXT, Asked, chunk, event, usage_event

Behaviour = Callable[[Asked], Awaitable[None]]
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]}
TEXTS = {"choices": [{"index": 0, "text": TEXT, "finish_reason": "stop"}]}
VECTORS = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": USAGE}


class Api(NamedTuple):
    """A path and a request to it."""

    path: str
    body: dict[str, Any]

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


_MESSAGES = [{"role": "user", "content": "Hi"}]
_BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "m", "messages": _MESSAGES},
    "completions": {"model": "m", "prompt": "Hi"},
    "messages": {"model": "m", "messages": _MESSAGES, "max_tokens": 50},
    "responses": {"model": "m", "input": "Hi"},
}
APIS = {
    **{name: Api(f"/v1/{name}", body) for name, body in _BODIES.items()},
    **{f"{name}, streamed": Api(f"/v1/{name}", {**body, "stream": True}) for name, body in _BODIES.items()},
    "embeddings": Api("/v1/embeddings", {"model": "m", "input": "Hi"}),
}


async def answer_well(asked: Asked) -> None:
    """A good answer to whatever is asked."""
    if asked.target.endswith("/embeddings"):
        await asked.whole(VECTORS)
    elif asked.target.endswith("/chat/completions"):
        await asked.answer()
    elif asked.body.get("stream"):
        choice = {"index": 0, "text": TEXT, "finish_reason": "stop"}
        body = b"data: " + json.dumps({"id": "x", "object": "text_completion", "choices": [choice]}).encode() + b"\n\n"
        await asked.send(HEAD, chunk(body), chunk(DONE), LAST)
    else:
        await asked.whole({**TEXTS, "usage": USAGE})


def says(*pieces: bytes, cuts: bool = True) -> Behaviour:
    """A worker that sends these bytes, and closes the connection."""

    async def say(asked: Asked) -> None:
        await asked.send(*pieces)
        if cuts:
            asked.writer.close()

    return say


def whole(body: bytes, head: bytes = JSON_HEAD, more: bytes = b"") -> Behaviour:
    return says(head + b"%bContent-Length: %d\r\n\r\n" % (more, len(body)) + body, cuts=False)


def events(*data: bytes, head: bytes = SSE_HEAD) -> Behaviour:
    return says(head + CHUNKED, *map(chunk, data), LAST, cuts=False)


def flood(head: bytes, piece: bytes) -> Behaviour:
    """A worker that says the same for ever."""

    async def say(asked: Asked) -> None:
        await asked.send(head)
        while True:
            asked.writer.write(piece)
            await asked.writer.drain()

    return say


_WORD = event("one", role="assistant")
_PIECE = 2**18
_ZIPPED = gzip.compress(json.dumps(CHAT).encode())
_ERROR = b'{"error": {"message": "broken", "type": "server_error", "code": 500}}'
# Of each kind of request, that a worker answers with nothing that is good.
BAD: dict[str, Behaviour] = {
    "an empty object": whole(b"{}"),
    "an empty object as text": whole(b"{}", b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"),
    "no body": whole(b""),
    "no type": whole(b"hello", b"HTTP/1.1 200 OK\r\n"),
    "a page": whole(b"<html>hello</html>", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"),
    "a page as an error": whole(b"<html>no</html>", b"HTTP/1.1 400 Bad\r\nContent-Type: text/html\r\n"),
    "a page as a fault": whole(b"<html>no</html>", b"HTTP/1.1 500 Bad\r\nContent-Type: text/html\r\n"),
    "an error of another form": whole(b'{"detail": [{"loc": ["x"], "msg": "no"}]}',
                                      b"HTTP/1.1 422 Bad\r\nContent-Type: application/json\r\n"),
    "an error without a body": whole(b"", b"HTTP/1.1 400 Bad\r\n"),
    "an error as a stream": events(b"data: no\n\n", head=b"HTTP/1.1 400 Bad\r\nContent-Type: text/event-stream\r\n"),
    "an error that is long": whole(b"x" * 9 * 2**20, b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n"),
    "an error with 200": whole(_ERROR),
    "elsewhere": whole(b"", b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:1/\r\n"),
    "no content": says(b"HTTP/1.1 204 No\r\n\r\n", cuts=False),
    "another protocol": says(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", cuts=False),
    "wrong choices": whole(b'{"choices": {"0": 1}, "data": "x"}'),
    "no choices": whole(b'{"choices": [], "data": []}'),
    "choices that are none": whole(b'{"choices": [null, 1], "data": [7]}'),
    "deep JSON": whole(b"[" * 100_000),
    "a list": whole(b"[]"),
    "NUL bytes": whole(b"\0" * 1000),
    "not UTF-8": whole(b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "a zipped body": whole(_ZIPPED, more=b"Content-Encoding: gzip\r\n"),
    "too little": says(JSON_HEAD + b'Content-Length: 100\r\n\r\n{"choices": ['),
    "too much": whole(b'{"choices"', JSON_HEAD, b"Content-Length: 5\r\n"),
    "a length below zero": says(JSON_HEAD + b"Content-Length: -5\r\n\r\n{}"),
    "length and chunks": says(JSON_HEAD + b"Content-Length: 5\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is none": says(JSON_HEAD + CHUNKED + b"xyz\r\n"),
    "a huge chunk": says(JSON_HEAD + CHUNKED + b"ffffffffffffffffffff\r\n{}"),
    "no HTTP": says(b"\x16\x03\x01\x02\x00\x01"),
    "HTTP/2": says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "provisional answers": flood(b"", b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n" * 100),
    "endless headers": flood(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000),
    "an endless header": flood(b"HTTP/1.1 200 OK\r\nX-Header: ", b"v" * _PIECE),
    "an endless status": flood(b"HTTP/1.1 200 ", b"v" * _PIECE),
    "endless trailers": flood(JSON_HEAD + CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n" * 10_000),
    "an endless chunk extension": flood(JSON_HEAD + CHUNKED + b"2;x=", b"v" * _PIECE),
    "a stream of nothing": events(),
    "a stream that does not begin": events(b"hello\n\n"),
    "a stream of NUL bytes": events(b"data: \0\0\0\n\n", DONE),
    "a stream of no JSON": events(b"data: hello\n\n", DONE),
    "a stream of half JSON": events(b'data: {"choices": [\n\n', DONE),
    "a stream of other JSON": events(b"data: 7\n\n", b"data: null\n\n", b"data: []\n\n", DONE),
    "a stream of empty objects": events(b"data: {}\n\n", b"data: {}\n\n", DONE),
    "a stream of its end": events(DONE),
    "a stream of an error": events(b"data: " + _ERROR + b"\n\n"),
    "a stream of an error, close": events(b"data:" + _ERROR + b"\n\n"),
    "a stream of an error event": events(b"event: error\ndata: " + _ERROR + b"\n\n"),
    "a stream of comments": events(b": hello\n\n", b": hello\n\n"),
    "a zipped stream": events(gzip.compress(_WORD), head=SSE_HEAD + b"Content-Encoding: gzip\r\n"),
    "an endless line": flood(SSE_HEAD + CHUNKED, chunk(b"x" * _PIECE)),
    "an endless event": flood(SSE_HEAD + CHUNKED + chunk(b"data: "), chunk(b"x" * _PIECE)),
    "an endless error": flood(b"HTTP/1.1 400 Bad\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
                              chunk(b"x" * _PIECE)),
    "an endless page": flood(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b"x" * _PIECE),
}  # fmt: skip
# A stream that was asked for breaks off after a word.
BROKEN: dict[str, Behaviour] = {
    "it ends": events(_WORD),
    "it ends in an event": events(_WORD, b"data: {"),
    "an error event": events(_WORD, b"data: " + _ERROR + b"\n\n", DONE),
    "an error event, close": events(_WORD, b"data:" + _ERROR + b"\n\n", DONE),
    "an error as text": events(_WORD, b"event: error\ndata: broken\n\n", DONE),
    "NUL bytes": events(_WORD, b"data: \0\0\n\n", DONE),
    "NUL bytes between": events(_WORD, b"\0\0\0\0", DONE),
    "no JSON": events(_WORD, b"data: hello\n\n", DONE),
    "half JSON": events(_WORD, b'data: {"choices": [{"delta": {"content": "x\n\n', DONE),
    "JSON twice": events(_WORD, b"data: {} {}\n\n", DONE),
    "not UTF-8": events(_WORD, b'data: {"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}\n\n', DONE),
    "an endless event": flood(HEAD + chunk(_WORD) + chunk(b"data: "), chunk(b"x" * _PIECE)),
    "a chunk that is none": says(HEAD + chunk(_WORD) + b"xyz\r\n"),
}
# Good answers in unusual frames.
GOOD: dict[str, Behaviour] = {
    "chunk extensions": says(HEAD + b"".join(b"%x;a=b;c\r\n%b\r\n" % (len(one), one)
                                             for one in (event(TEXT), event(None, "stop"), DONE)) + LAST, cuts=False),
    "trailers": says(HEAD + chunk(event(TEXT)) + chunk(event(None, "stop") + usage_event(7, 6)) + chunk(DONE)
                     + b"0\r\nX-Trailer: x\r\nX-Other: y\r\n\r\n", cuts=False),
    "a provisional answer": says(b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n", HEAD +
                                 chunk(event(TEXT)) + chunk(event(None, "stop")) + chunk(DONE) + LAST, cuts=False),
    "garbage after its end": says(HEAD + chunk(event(TEXT)) + chunk(event(None, "stop")) + chunk(DONE), b"xyz\r\n"),
    "cut after its end": says(HEAD + chunk(event(TEXT)) + chunk(event(None, "stop")) + chunk(DONE)),
    "byte by byte": says(HEAD, *[chunk(bytes([one])) for one in event(TEXT) + event(None, "stop") + DONE], LAST,
                         cuts=False),
    "without [DONE]": events(event(TEXT), event(None, "stop")),
    "without a last blank line": events(event(TEXT), event(None, "stop"), DONE[:-2]),
    "CRLF": events(*[one.replace(b"\n", b"\r\n") for one in (event(TEXT), event(None, "stop"), DONE)]),
    "until it closes": says(SSE_HEAD + b"\r\n" + event(TEXT), event(None, "stop") + DONE),
    "without blanks": events(*[one.replace(b"data: ", b"data:") for one in (event(TEXT), event(None, "stop"), DONE)]),
}  # fmt: skip


def require_form(api: Api, answer: httpx.Response) -> str:
    """Check that an answer has the form of its API; "good", or "error" for one that says that it is none."""
    assert "location" not in answer.headers and "content-encoding" not in answer.headers
    if answer.status_code >= 400:
        assert answer.headers["content-type"].startswith("application/json"), answer.headers
        _require_error(api, answer.json())
        return "error"
    assert answer.status_code == 200
    return _require_stream(api, answer) if api.streams else _require_whole(api, answer.json())


def _require_error(api: Api, body: dict[str, Any]) -> None:
    error = body["error"]
    assert isinstance(error["message"], str) and error["message"] and isinstance(error["type"], str), body
    if api.path == "/v1/messages":
        assert body["type"] == "error"


def _require_whole(api: Api, body: dict[str, Any]) -> str:
    if api.path == "/v1/chat/completions":
        assert body["choices"][0]["message"]["content"] == TEXT
    elif api.path == "/v1/completions":
        assert body["choices"][0]["text"] == TEXT
    elif api.path == "/v1/messages":
        assert (body["type"], body["content"][0]["text"]) == ("message", TEXT)
    elif api.path == "/v1/responses":
        assert body["output"][0]["content"][0]["text"] == TEXT
    else:
        assert body["data"][0]["embedding"] == [0.5]
    return "good"


def _require_stream(api: Api, answer: httpx.Response) -> str:
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "\0" not in answer.text
    payloads = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
    found = [json.loads(payload) for payload in payloads if payload != "[DONE]"]
    assert all(isinstance(one, dict) for one in found), found
    if errors := [one for one in found if isinstance(one.get("error"), dict) or one.get("type") == "error"]:
        assert "[DONE]" not in payloads, "an error is the end"
        assert all(json.dumps(one).count("message") for one in errors)
        return "error"
    if api.path in ("/v1/chat/completions", "/v1/completions"):
        assert payloads[-1] == "[DONE]"
        assert _said(found) == TEXT
    elif api.path == "/v1/messages":
        assert found[-1] == {"type": "message_stop"}
        assert "".join(one["delta"].get("text", "") for one in found if one["type"] == "content_block_delta") == TEXT
    else:
        assert found[-1]["type"] == "response.completed"
        assert found[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    return "good"


def _said(found: list[dict[str, Any]]) -> str:
    choices = [choice for one in found for choice in one["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
