"""What tests of cut streams share: how a stream would go on, and what a client is told by one."""

import json
from collections.abc import Sequence
from typing import Any

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.resume import plan
from slurminfer.router.relay.stream.transcript import Transcript

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def continuation(body: dict[str, Any], *chunks: dict[str, Any], engine: str = "vllm") -> Any:
    """The plan after these events of a stream that was asked for by `body`."""
    path = CHAT if "messages" in body else COMPLETIONS
    raw = json.dumps({"model": "m", "stream": True, **body}).encode()
    transcript = Transcript()
    for chunk in chunks:
        transcript.add(b"data: " + json.dumps({"id": "1", **chunk}).encode() + b"\n\n")
    return plan(read_envelope(path, "", raw), raw, transcript, engine)


def put_together(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all events of a stream say: text, roles, finish reasons and usage."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    deltas = [choice.get("delta", choice) for choice in choices]
    return {
        "text": "".join(delta.get("content") or delta.get("text") or "" for delta in deltas),
        "roles": [delta["role"] for delta in deltas if "role" in delta],
        "finish": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "usage": [chunk["usage"] for chunk in chunks if not chunk["choices"]],
    }
