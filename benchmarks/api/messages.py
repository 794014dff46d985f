"""Anthropic's API: what translating it adds to a request and its answer, through one router before a stub worker.

The same conversation is asked for in turns as /v1/chat/completions and as /v1/messages. The worker takes no time, so
what differs is the router's work. `agent` is as large as requests of coding agents are.
"""

import asyncio
import json
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from ..router.client import Answer, Connection, post
from ..router.fleet import MODEL, Fleet
from ..router.ours import ours
from ..router.stub.__main__ import Configuration
from ..router.targets import Target

_TOKENS = 64
_PAUSE_S = 0.002  # between two requests, so that none waits for what another one has left to be done
_WORDS = "a line of a file that an agent has read; "
Fields = dict[str, Any]


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """Milliseconds of each case, and those that are added. `model` is not needed."""
    rounds = 50 if quick else 400
    with tempfile.TemporaryDirectory(prefix="slurminfer-") as folder, ExitStack() as stack:
        fleet = stack.enter_context(Fleet(Path(folder), 1, Configuration(sockets=[])))
        target = stack.enter_context(ours(Path(folder), fleet.workers))
        cases = {name: uvloop.run(_case(target, *pair, rounds)) for name, pair in _cases().items()}
    return {
        "rounds": rounds,
        "messages_added_ms": cases["whole"]["added_ms"],
        "messages_added_stream_ms": cases["stream"]["added_ms"],
        **cases,
    }


def _cases() -> Mapping[str, tuple[Fields, Fields]]:
    """Pairs of requests that ask for the same: chat, messages."""
    question = [{"role": "user", "content": "Why is the sky blue?"}]
    small = {"model": MODEL, "max_tokens": _TOKENS, "messages": question}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    chat, messages = _agent()
    return {
        "whole": (small, small),
        "stream": ({**small, **streamed}, {**small, "stream": True}),
        "agent": ({**chat, **streamed}, {**messages, "stream": True}),
    }


def _agent() -> tuple[Fields, Fields]:
    """A conversation of 40 calls of tools with 24 tools, about 200 kB."""
    schema = {"type": "object", "properties": {name: {"type": "string", "description": _WORDS} for name in "abcdef"}}
    chat: list[Fields] = [{"role": "system", "content": _WORDS * 200}, {"role": "user", "content": "Go on."}]
    messages: list[Fields] = [{"role": "user", "content": [{"type": "text", "text": "Go on."}]}]
    for number in range(40):
        call, said, given = f"call_{number}", _WORDS * 90, {"path": f"file-{number}"}
        function = {"name": "tool-1", "arguments": json.dumps(given)}
        calls = [{"id": call, "type": "function", "function": function}]
        chat.append({"role": "assistant", "content": None, "tool_calls": calls})
        chat.append({"role": "tool", "tool_call_id": call, "content": said})
        use = {"type": "tool_use", "id": call, "name": "tool-1", "input": given}
        messages.append({"role": "assistant", "content": [use]})
        messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": said}]})
    names = [f"tool-{number}" for number in range(24)]
    tools = [{"name": name, "description": _WORDS * 20, "input_schema": schema} for name in names]
    functions = [
        {"type": "function", "function": {"name": name, "description": _WORDS * 20, "parameters": schema}}
        for name in names
    ]
    both = {"model": MODEL, "max_tokens": _TOKENS}
    system = [{"type": "text", "text": _WORDS * 200, "cache_control": {"type": "ephemeral"}}]
    return (
        {**both, "messages": chat, "tools": functions},
        {**both, "messages": messages, "tools": tools, "system": system},
    )


async def _case(target: Target, chat: Fields, messages: Fields, rounds: int) -> dict[str, float]:
    """Medians of one case."""
    requests = {
        "chat": post(target, "/v1/chat/completions", json.dumps(chat).encode()),
        "messages": post(target, "/v1/messages", json.dumps(messages).encode()),
    }
    connection = await Connection.open(target)
    took: dict[str, list[float]] = {name: [] for name in requests}
    first: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(rounds + 10):
        order = list(requests) if number % 2 == 0 else list(reversed(requests))
        for name in order:
            answer = await connection.ask(requests[name])
            _require_good(answer, name)
            if number >= 10:  # those before warm up
                took[name].append(answer.took_s)
                first[name].append(answer.first_s)
            await asyncio.sleep(_PAUSE_S)
    connection.close()
    ms = {f"{name}_ms": 1e3 * statistics.median(times) for name, times in took.items()}
    ms |= {f"{name}_first_ms": 1e3 * statistics.median(times) for name, times in first.items()}
    added = {
        "added_ms": ms["messages_ms"] - ms["chat_ms"],
        "added_first_ms": ms["messages_first_ms"] - ms["chat_first_ms"],
    }
    return {**ms, **added, "body_kb": len(requests["messages"]) / 1e3}


def _require_good(answer: Answer, name: str) -> None:
    """Raise RuntimeError for what is no whole answer."""
    end = {"chat": (b"[DONE]", b'"finish_reason"'), "messages": (b"message_stop", b'"stop_reason":"')}[name]
    if answer.status != 200 or not answer.complete or not any(each in answer.body for each in end):
        raise RuntimeError(f"{name}: {answer.status} {answer.error} {bytes(answer.body[:500])!r}")
