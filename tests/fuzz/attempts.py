"""Random requests as bytes on a socket: good ones, clumsy ones and hostile ones, and when their client hangs up."""

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Leave(Enum):
    """When a client hangs up."""

    NEVER = "after the whole answer"
    IN_HEAD = "in the middle of its head"
    IN_BODY = "in the middle of its body"
    ASKED = "when everything is sent"
    ANSWERED = "after the answer's first bytes"


@dataclass(frozen=True)
class Attempt:
    """One connection of a client."""

    head: bytes
    body: bytes
    leave: Leave
    is_http: bool  # what is sent is HTTP that a server can make sense of, so that there must be an answer

    @property
    def must_be_answered(self) -> bool:
        return self.is_http and self.leave is Leave.NEVER


_WORDS = [
    "a",
    "the fox",
    "",
    " ",
    "\n\n",
    "é",
    "こんにちは 🎉",
    "\x00",
    "\ufeff",
    "\u2028",
    "<s>",
    "<|user|>",
    "0" * 300,
]
_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.0, 0.5, -0.0, 1e-38, 1e308, -1e308, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40,
    "", "x", "1", [], {}, [None], [[]], [1, "a"], {"a": {}}, [2**63], [-1], ["", ""], "x" * 5000,
]  # fmt: skip
_NUMBERS: dict[str, list[Any]] = {
    "max_tokens": [1, 2, 3, 5, 8, 10.0],
    "temperature": [0, 0.0, 1e-38, 0.1, 1, 1.5, 2],
    "top_p": [0, 1e-9, 0.1, 0.9, 1],
    "top_k": [-1, 0, 1, 2, 300, 10**6, 40.0],
    "min_p": [0, 0.05, 1],
    "presence_penalty": [-2, 0, 2],
    "frequency_penalty": [-2, 0.5, 2],
    "repetition_penalty": [0.01, 1, 1.3, 10],
    "seed": [0, 1, -1, 2**63 - 1, -(2**63)],
    "n": [1, 2, 3],
}
_OTHERS: dict[str, list[Any]] = {
    "stream": [True, False],
    "stream_options": [{"include_usage": True}, {}, {"include_usage": False}],
    "stop": ["a", ["a", "b"], [" fox"], "<s>", ["é"], ""],
    "stop_token_ids": [[1], [0, 5, 319], []],
    "ignore_eos": [True, False],
    "logprobs": [0, 1, 5, 20, True, False],
    "top_logprobs": [0, 3, 20],
    "user": ["somebody"],
    "continue_final_message": [True, False],
    "add_generation_prompt": [True, False],
    "max_completion_tokens": [1, 4],
    "echo": [False, True],
    "tools": [[], [{"type": "function", "function": {"name": "f", "parameters": {}}}]],
    "logit_bias": [{}, {"5": 1}],
    "response_format": [{"type": "text"}, {"type": "json_object"}],
    "skip_special_tokens": [True, False],
    "min_tokens": [0, 3],
    "chat_template_kwargs": [{}, {"enable_thinking": False}],
    "no_such_field": [1],
}
_PATHS = ["/v1/models", "/v1/models/tiny", "/health", "/metrics", "/", "/v1", "/v1/nothing", "/v1/../key",
          "/%2e%2e/key", "//v1//models", "/v1/models/%ff", "/workers"]  # fmt: skip


class Attempts:
    """An endless supply of attempts; the same seed gives the same ones."""

    def __init__(self, seed: int, *, model: str, key: str) -> None:
        self._random = random.Random(seed)
        self._model, self._key = model, key

    def __iter__(self) -> Iterator[Attempt]:
        return self

    def __next__(self) -> Attempt:
        maker = self._one_of(self._generation, self._generation, self._generation, self._other_path, self._bad_http)
        return maker()

    def _generation(self) -> Attempt:
        if self._chance(0.3):
            return self._attempt("POST", "/v1/completions", self._written({"prompt": "a b", **self._fields(0)}), [])
        chat = self._chance(0.5)
        body = self._chat() if chat else self._completion()
        path = "/v1/chat/completions" if chat else "/v1/completions"
        raw = self._damaged(self._written(body)) if self._chance(0.25) else self._written(body)
        encoding = self._one_of(*[None] * 12, "gzip", "deflate", "zstd", "nonsense")
        headers = [
            f"Content-Type: {self._one_of(*['application/json'] * 6, 'text/plain', 'application/json; charset=x')}"
        ]
        if encoding:
            headers.append(f"Content-Encoding: {encoding}")
            raw = self._packed(raw, encoding)
        return self._attempt("POST", path, raw, headers)

    def _other_path(self) -> Attempt:
        method = self._one_of("GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
        body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
        extra = ["Origin: http://page.example", "Access-Control-Request-Method: POST"] if method == "OPTIONS" else []
        return self._attempt(method, self._one_of(*_PATHS), body, extra)

    def _bad_http(self) -> Attempt:
        """What is no HTTP, or contradicts itself: an answer, a closed connection, and nothing else may come of it."""
        body = self._written(self._completion())
        lines = [
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n" + body,
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
            + body,
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"\xff\x00" * 10 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            self._random.randbytes(self._random.randrange(1, 200)),
        ]
        return Attempt(self._one_of(*lines), b"", Leave.ASKED if self._chance(0.5) else Leave.ANSWERED, is_http=False)

    def _attempt(self, method: str, path: str, body: bytes, headers: list[str]) -> Attempt:
        lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
        if self._chance(0.1) and body:
            lines.append("Transfer-Encoding: chunked")
            body = self._chunked(body)
        elif body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        key = self._one_of(
            *[f"Bearer {self._key}"] * 12, f"bearer {self._key}", "Bearer wrong", "Basic x", "Bearer \xff"
        )
        if self._chance(0.97):
            lines.append(f"Authorization: {key}")
        if self._chance(0.1):
            lines.append(f"X-Request-Id: {self._one_of('abc', 'x' * 3000, 'a b', chr(0xE9))}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        leave = self._one_of(*[Leave.NEVER] * 8, Leave.IN_HEAD, Leave.IN_BODY, Leave.ASKED, Leave.ANSWERED)
        return Attempt(head, body, leave, is_http=True)

    def _completion(self) -> dict[str, Any]:
        prompt = self._one_of(
            self._text, self._text, self._text, lambda: [self._text() for _ in range(self._random.randrange(1, 4))],
            lambda: [self._random.randrange(330) for _ in range(self._random.randrange(6))],
            lambda: self._one_of(*_ODD), lambda: "x" * self._random.randrange(20_000),
        )()  # fmt: skip
        return {"prompt": prompt, **self._fields()}

    def _chat(self) -> dict[str, Any]:
        return {"messages": [self._message() for _ in range(self._random.randrange(1, 4))], **self._fields()}

    def _message(self) -> Any:
        content: Any = self._one_of(self._text(), [{"type": "text", "text": self._text()}], None, *_ODD[:6])
        role = self._one_of("user", "user", "assistant", "system", "tool", "nobody", None)
        calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": self._one_of("{}", "{", "1")}}]
        extra = {"tool_calls": self._one_of(calls, [], None)} if self._chance(0.1) else {}
        return self._one_of(*_ODD) if self._chance(0.03) else {"role": role, "content": content, **extra}

    def _fields(self, wrong: float = 0.2) -> dict[str, Any]:
        """A few fields with values that they may have, and with this chance one that has none of them."""
        pool = {**_NUMBERS, **_OTHERS}
        fields: dict[str, Any] = {"model": self._model, "max_tokens": self._random.randrange(1, 6)}
        for name in self._random.sample(list(_NUMBERS), self._random.randrange(4)):
            fields[name] = self._one_of(*pool[name])
        if self._chance(wrong):
            for name in self._random.sample(list(_OTHERS), self._random.randrange(3)):
                fields[name] = self._one_of(*pool[name])
            fields[self._one_of("model", *pool)] = self._one_of(*_ODD)
        return fields

    def _text(self) -> str:
        return "".join(self._one_of(*_WORDS) for _ in range(self._random.randrange(8)))

    def _written(self, body: Any) -> bytes:
        return json.dumps(body, ensure_ascii=self._chance(0.5)).encode()

    def _damaged(self, raw: bytes) -> bytes:
        at = self._random.randrange(len(raw))
        return self._one_of(
            raw[:at],
            raw[:at] + self._random.randbytes(3) + raw[at:],
            raw.replace(b'"', b"'"),
            raw + raw,
            b"\xef\xbb\xbf" + raw,
            b'{"model": "tiny", "prompt": "\\ud800", "max_tokens": 2}',
            b'{"model": "tiny", "prompt": ' + b"[" * 30_000,
            b'{"model": "tiny", "prompt": "a", "temperature": NaN}',
            b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
            b"",
            b"null",
        )

    def _packed(self, raw: bytes, encoding: str) -> bytes:
        packed = gzip.compress(raw) if encoding == "gzip" else zlib.compress(raw) if encoding == "deflate" else raw
        return self._one_of(packed, packed, packed[: len(packed) // 2], raw, gzip.compress(b"[" * 2_000_000))

    def _chunked(self, body: bytes) -> bytes:
        size = self._random.randrange(1, len(body) + 1)
        parts = [body[at : at + size] for at in range(0, len(body), size)][:200]
        left = body[size * len(parts) :]
        return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, left] if part) + b"0\r\n\r\n"

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _one_of(self, *values: Any) -> Any:
        return self._random.choice(values)
