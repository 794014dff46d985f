"""One stream of an engine: asking for it, and all that its client is told."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from slurminfer.router.relay.stream.events import payloads

Fields = dict[str, Any]


@dataclass(slots=True)
class Told:
    """What the events of a stream say, put together."""

    text: str = ""
    ids: set[Any] = field(default_factory=set)
    roles: list[str] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    usage: list[tuple[int, int]] = field(default_factory=list)  # tokens of prompt and answer
    pieces: int = 0  # events with text
    error: str = ""
    done: int = 0

    @classmethod
    def of(cls, data: bytes) -> "Told":
        """Read whole events."""
        told = cls()
        for payload in payloads(data):
            if payload.strip() == b"[DONE]":
                told.done += 1
                continue
            told._add(json.loads(payload))
        return told

    def _add(self, event: Fields) -> None:
        if "error" in event:
            self.error = str(event["error"])
            return
        self.ids.add(event["id"])
        if not event["choices"]:
            usage = event["usage"]
            self.usage.append((usage["prompt_tokens"], usage["completion_tokens"]))
        for choice in event["choices"]:
            delta = choice.get("delta", choice)
            text = delta.get("content") or delta.get("text") or ""
            self.text += text
            self.pieces += bool(text)
            self.roles += [delta["role"]] if delta.get("role") else []
            self.finish += [choice["finish_reason"]] if choice["finish_reason"] else []


def differences(told: Told, expected: Told) -> list[str]:
    """In what a stitched stream differs from the undisturbed one; empty where it does not."""
    found = []
    if told.error or told.done != 1:
        found.append("end")
    if len(told.ids) != 1:
        found.append("ids")
    for name in ("text", "roles", "finish", "usage"):
        if getattr(told, name) != getattr(expected, name):
            found.append(name)
    return found


def path_of(fields: Fields) -> str:
    """The endpoint for a request."""
    return "/v1/chat/completions" if "messages" in fields else "/v1/completions"


class Asker:
    """A client of one engine's Unix socket."""

    def __init__(self, socket: Path) -> None:
        timeout = aiohttp.ClientTimeout(total=300)
        self._session = aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(str(socket), limit=0),
                                              timeout=timeout)  # fmt: skip

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def post(self, path: str, body: bytes | Fields) -> bytes:
        """The whole answer. Raises RuntimeError for one with an error status."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(path, data=data, headers={"Content-Type": "application/json"}) as answer:
            said = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status}: {said[:300]!r}")
            return said
