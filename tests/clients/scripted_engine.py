"""An engine without a model, for agents: it calls the tools that the prompt names, and quotes what they returned.

python -m tests.clients.scripted_engine RUN_DIRECTORY

It is the worker of a deployment, which a real router serves. It speaks /v1/chat/completions as a strict engine does:
what it is sent wrongly is a 400 that names it. A line `CALL name {...}` in the last message of the user is a call of
that tool with these arguments. Once the tools have answered, the answer is `The tool returned: ` and what they said.
Without a line of that form the answer is `You said: ` and the last line of the message.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from slurminfer.core.private_folder import private_folder
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory

MODEL = "scripted"
POOL = "scripted"
_CALL = re.compile(r"^\s*CALL (\S+) (\{.*\})\s*$", re.MULTILINE)
_PIECE = 7  # characters of arguments or of text in one chunk
_BODY_BYTES = 2**26
Message = dict[str, Any]


class RefusedError(Exception):
    """The request is not what a strict engine takes."""


def text_of(content: object) -> str:
    """A message's text, whether it is a string, a list of parts, or null. Raises RefusedError for other content."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RefusedError(f"content: expected a string or a list of parts, not {type(content).__name__}")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RefusedError(f"content: expected parts of text, not {json.dumps(part)[:200]}")
    return "\n".join(part["text"] for part in content)


def check_tools(tools: object) -> list[str]:
    """The names of the tools that a request offers. Raises RefusedError where one is not a function with a schema."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise RefusedError("tools: expected a list")
    names = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RefusedError(f"tools: expected functions with a name, not {json.dumps(tool)[:200]}")
        if not isinstance(function.get("parameters", {}), dict):
            raise RefusedError(f"tools: the parameters of {function['name']} are not a JSON schema")
        names.append(function["name"])
    return names


def check_messages(messages: object) -> list[Message]:
    """The messages, if each result of a tool answers a call before it. Raises RefusedError else."""
    if not isinstance(messages, list) or not messages:
        raise RefusedError("messages: expected a list of at least one message")
    called: set[str] = set()
    for message in messages:
        role = message.get("role")
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise RefusedError(f"role: expected system, developer, user, assistant or tool, not {role!r}")
        text_of(message.get("content"))
        for call in message.get("tool_calls") or []:
            json.loads(call["function"]["arguments"])
            called.add(call["id"])
        if role == "tool" and message.get("tool_call_id") not in called:
            raise RefusedError(f"tool_call_id: no call before it has the id {message.get('tool_call_id')!r}")
    return messages


def reply(body: dict[str, Any]) -> Message:
    """The assistant's next message. Raises RefusedError where the request is wrong."""
    messages, offered = check_messages(body.get("messages")), check_tools(body.get("tools"))
    results = _results(messages)
    if results:
        return {"role": "assistant", "content": "The tool returned: " + "\n".join(results)}
    said = text_of(next((one["content"] for one in reversed(messages) if one["role"] == "user"), ""))
    calls = [(name, arguments) for name, arguments in _CALL.findall(said)]
    unknown = sorted({name for name, _ in calls} - set(offered))
    if unknown and offered:
        raise RefusedError(f"the script calls {unknown}, and the tools are {offered}")
    if calls and offered and body.get("tool_choice") != "none":
        return {"role": "assistant", "content": None, "tool_calls": list(_calls(calls, len(messages)))}
    return {"role": "assistant", "content": "You said: " + (said.strip().splitlines() or [""])[-1]}


def _results(messages: list[Message]) -> list[str]:
    """What the tools returned since the assistant's last message."""
    since = [message["role"] for message in messages]
    first = len(since) - next((back for back, role in enumerate(reversed(since)) if role == "assistant"), len(since))
    return [text_of(message["content"]) for message in messages[first:] if message["role"] == "tool"]


def _calls(calls: list[tuple[str, str]], turn: int) -> Iterator[dict[str, Any]]:
    for index, (name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": json.dumps(json.loads(arguments))}
        yield {"id": f"call_{turn}_{index}", "type": "function", "function": function}


def usage_of(body: dict[str, Any], message: Message) -> dict[str, int]:
    """Token counts that rise with what was sent and said: a token has four characters."""
    prompt, answer = len(json.dumps(body["messages"])) // 4 + 1, len(json.dumps(message)) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """The answer in one piece. Raises RefusedError where the request is wrong."""
    message = reply(body)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(message)}
    return _envelope("chat.completion") | {"choices": [choice], "usage": usage_of(body, message)}


def chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer in the chunks of a stream. Raises RefusedError where the request is wrong."""
    message = reply(body)
    deltas = [{"role": "assistant", "content": ""}, *_deltas(message)]
    found = [_chunk(delta, None) for delta in deltas] + [_chunk({}, _finish(message))]
    if (body.get("stream_options") or {}).get("include_usage"):
        found.append(_envelope("chat.completion.chunk") | {"choices": [], "usage": usage_of(body, message)})
    return found


def _deltas(message: Message) -> Iterator[dict[str, Any]]:
    for piece in _pieces(message["content"] or ""):
        yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls", [])):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": function["name"], "arguments": ""}}]}
        for piece in _pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _finish(message: Message) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _envelope(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1_700_000_000, "model": MODEL}


def _chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _envelope("chat.completion.chunk") | {"choices": [choice]}


async def _events(body: dict[str, Any]) -> AsyncIterator[bytes]:
    for chunk in chunks(body):
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def application(log: Path | None = None) -> web.Application:
    """The engine's HTTP server; each request is added to `log` as a line of JSON."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(body) + "\n")
        try:
            if not body.get("stream"):
                return web.json_response(whole(body))
            events = [event async for event in _events(body)]
        except (RefusedError, KeyError, TypeError, AttributeError, ValueError) as error:
            said = {
                "message": f"scripted engine: {error!r}",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
            return web.json_response({"error": said}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
        return response

    async def models(request: web.Request) -> web.Response:
        card = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "slurminfer"}
        return web.json_response({"object": "list", "data": [card | {"max_model_len": 200_000}]})

    async def completion(request: web.Request) -> web.Response:
        """What the router asks for to see whether the engine generates."""
        choice = {"index": 0, "text": "1", "logprobs": None, "finish_reason": "length"}
        return web.json_response(_envelope("text_completion") | {"choices": [choice]})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/completions", completion)
    app.router.add_post("/v1/chat/completions", chat)
    return app


async def serve(run: RunDirectory) -> None:
    """Be the deployment's worker until cancelled."""
    with private_folder() as folder:
        path = folder / "engine.sock"
        runner = web.AppRunner(application(run.path / "requests.jsonl"), access_log=None)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        while True:
            run.write_worker(_record(path))
            await asyncio.sleep(1)


def _record(path: Path) -> WorkerRecord:
    return WorkerRecord(
        id=f"{POOL}-0", pool=POOL, engine="native", model=MODEL, state=WorkerState.READY, host=socket.gethostname(),
        job=str(os.getpid()), epoch=0, pid=os.getpid(), updated_at=time.time(), socket=str(path), capacity=16,
    )  # fmt: skip


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.scripted_engine")
    parser.add_argument("run_directory", type=Path)
    asyncio.run(serve(RunDirectory(parser.parse_args().run_directory)))


if __name__ == "__main__":
    main()
