"""A relay in this process, and stub workers that a test steers byte by byte."""

import asyncio
import hashlib
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from slurminfer.core.spec.router import RouterSpec
from slurminfer.router.control.board import Board
from slurminfer.router.control.messages import Outlook, Report, Setup, Suspect, Tenants, View, WorkerView
from slurminfer.router.relay.server import RelayServer
from slurminfer.router.tenants.tenant import Tenant

from ...support import waiting
from ...support.loop import Loop

TEXT = "one two three four five six"
WORDS = ["one", " two", " three", " four", " five", " six"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str | None, finish: str | None = None, role: str | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    if role is not None:
        delta["role"] = role
    names = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**names, "choices": [choice]}).encode() + b"\n\n"


def usage_event(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return b"data: " + json.dumps({"id": "x", "choices": [], "usage": usage}).encode() + b"\n\n"


class Asked:
    """A request at a stub."""

    def __init__(self, stub: "Stub", head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.stub, self.writer, self.raw = stub, writer, body
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        self.body: dict[str, Any] = json.loads(body) if body[:1] == b"{" else {}

    async def send(self, *pieces: bytes) -> None:
        """Send pieces that arrive one by one."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.001)

    async def whole(self, body: Any, status: int = 200, kind: str = "application/json", more: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        await self.send(head.encode() + data)

    def cut(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()

    async def forever(self) -> None:
        """Say nothing more until the connection ends."""
        await self.stub.ended(self.writer)

    # A model that knows one text.

    @property
    def rest(self) -> list[str]:
        """The words of TEXT that the prompt does not end with."""
        last = (self.body.get("messages") or [{}])[-1]
        said = last.get("content", "") if self.body.get("continue_final_message") else ""
        words, length = list(WORDS), 0
        while words and length < len(said):
            length += len(words.pop(0))
        return words

    async def answer(self, words: int | None = None) -> None:
        """Answer with TEXT, or go on with it; of a stream so many words only, and then not even its end."""
        rest = self.rest
        if not self.body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "".join(rest)}, "finish_reason": "stop"}
            await self.whole({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": len(rest)}})
            return
        await self.send(HEAD)
        for number, word in enumerate(rest[:words]):
            await self.send(chunk(event(word, role="assistant" if number == 0 else None)))
        if words is None:
            end = event(None, "stop")
            if (self.body.get("stream_options") or {}).get("include_usage"):
                end += usage_event(7 + len(WORDS) - len(rest), len(rest))
            await self.send(chunk(end), chunk(DONE), LAST)


Behaviour = Callable[[Asked], Awaitable[None]]


async def answer(asked: Asked) -> None:
    await asked.answer()


async def drop(asked: Asked) -> None:
    asked.cut()


async def hang(asked: Asked) -> None:
    await asked.forever()


class Stub:
    """A worker on a Unix socket. `behaviour` answers what is not GET; one that returns keeps the connection."""

    def __init__(self, path: Path, worker_id: str, behaviour: Behaviour = answer) -> None:
        self.path, self.id, self.behaviour = path, worker_id, behaviour
        self.health, self.is_stopped = 200, False
        self.asked: list[Asked] = []
        self.aborted = 0  # requests whose connection has ended before their answer
        self._ends: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.is_stopped = False
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def stop(self) -> None:
        """End as a process does that is killed."""
        self.is_stopped = True
        self.path.unlink(missing_ok=True)
        for _ in range(3):  # what is in the backlog: asyncio leaves it open if the server is closed meanwhile
            await asyncio.sleep(0)
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in list(self._ends):
            writer.transport.abort()

    async def ended(self, writer: asyncio.StreamWriter) -> None:
        await self._ends[writer].wait()
        raise ConnectionResetError

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_stopped:  # it was in the backlog
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._ends[writer] = asyncio.Event()
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await self._serve(reader, writer)
        self._ends.pop(writer).set()
        self._tasks.discard(task)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        body = await reader.readexactly(int(length.split(b":")[1]))
        if head.startswith(b"GET /health"):
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.health)
            return
        asked = Asked(self, head, body, writer)
        self.asked.append(asked)
        answering = asyncio.create_task(_quietly(self, self.behaviour(asked)))
        watching = asyncio.create_task(_read(reader))
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self._ends[writer].set()
            await asyncio.wait({answering}, timeout=1)
        answering.cancel()
        if watching.done():
            raise ConnectionError
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _read(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read(1)


async def _quietly(stub: Stub, answering: Awaitable[None]) -> None:
    try:
        await answering
    except (ConnectionError, RuntimeError):
        stub.aborted += 1


class Relayed:
    """One relay before stubs."""

    def __init__(self, loop: Loop, folder: Path, **router: Any) -> None:
        self._loop, self.folder = loop, folder
        self.stubs: list[Stub] = []
        self.views: dict[str, WorkerView] = {}
        self.outlooks: dict[str, Outlook] = {}
        self.suspects: list[Suspect] = []
        self._slot = 0
        self._tenants = [tenant("key", name="one", slot=0, admin=True)]
        self.tokens_today: dict[str, int] = {}
        self._setup = Setup(
            index=0,
            relays=1,
            router=msgspec.to_builtins(RouterSpec(**router)),
            pools=[{"name": "stubs", "model": "m"}, {"name": "others", "model": "n"}],
            control_socket=str(folder / "control"),
            responses=str(folder / "responses"),
        )
        loop.run(self._start())
        self._clients: list[httpx.Client] = []
        self.http = self.client("key")

    async def _start(self) -> None:
        self.board = Board.create(1)
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.server = RelayServer(self._setup, self.board, listener, self.suspects.append, None)  # type: ignore[arg-type]
        self.server.view(View([]))
        self._tell_tenants()
        await self.server.start()

    def client(self, key: str, **headers: str) -> httpx.Client:
        host, port = self.address
        every = {"Authorization": f"Bearer {key}", **headers}
        self._clients.append(httpx.Client(base_url=f"http://{host}:{port}", headers=every, timeout=20))
        return self._clients[-1]

    def _tell_tenants(self) -> None:
        self.server.tenants(Tenants(self._tenants, self.tokens_today))

    def add_tenant(self, key: str, **fields: Any) -> httpx.Client:
        self._tenants.append(tenant(key, slot=len(self._tenants), **fields))
        self.run(self._tell_tenants)
        return self.client(key)

    def add(self, worker_id: str, behaviour: Behaviour = answer, **view: Any) -> Stub:
        """A worker, or another life of it."""
        stub = Stub(self.folder / worker_id, worker_id, behaviour)
        self._loop.run(stub.start())
        self.stubs.append(stub)
        fields = {
            "slot": self._slot, "id": worker_id, "pool": "stubs", "engine": "vllm", "model": "m", "job": "1",
            "epoch": 0, "host": socket.gethostname(), "url": None, "socket": str(stub.path), "identity": "",
            "key": "engine-key",
            "capacity": 4, "state": "ready", "choosable": True, "trouble": "",
        }  # fmt: skip
        self._slot += 1
        self.tell(worker_id, WorkerView(**{**fields, **view}))
        return stub

    def tell(self, worker_id: str, view: WorkerView | None = None, **changes: Any) -> None:
        """Tell the relay of a worker as the supervisor does; without a view or changes it is gone."""
        if view is None and not changes:
            del self.views[worker_id]
        else:
            self.views[worker_id] = view or msgspec.structs.replace(self.views[worker_id], **changes)
        self.run(self._tell_view)

    def promise(self, **outlook: Any) -> None:
        """Tell the relay the outlook of the pool `stubs`."""
        self.outlooks = {"stubs": Outlook(**outlook)}
        self.run(self._tell_view)

    def _tell_view(self) -> None:
        self.server.view(View(list(self.views.values()), self.outlooks))

    def run(self, call: Callable[[], Any]) -> Any:
        """The result of `call` in the loop's thread."""

        async def run() -> Any:
            return call()

        return self._loop.run(run())

    def kill(self, stub: Stub) -> None:
        self._loop.run(stub.stop())

    def report(self) -> Report:
        return self.run(self.server.report)

    def chat(self, client: httpx.Client | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
        return (client or self.http).post("/v1/chat/completions", json=body)

    def is_idle(self) -> bool:
        return all(self.board.in_flight(slot) == 0 == self.board.pending_tokens(slot) for slot in range(self._slot))

    def close(self) -> None:
        waiting.eventually(self.is_idle)
        for client in self._clients:
            client.close()
        self._loop.run(self.server.close())
        for stub in self.stubs:
            self._loop.run(stub.stop())
        self.board.close()


def tenant(key: str, **fields: Any) -> Tenant:
    return Tenant(digest=hashlib.sha256(key.encode()).hexdigest(), **fields)


def text_of(answer: httpx.Response) -> str:
    """The text of an answer, in whichever form."""
    if answer.headers["content-type"].startswith("application/json"):
        return str(answer.json()["choices"][0]["message"]["content"])
    return "".join(
        choice["delta"].get("content") or "" for event in events_of(answer) for choice in event.get("choices", ())
    )


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream but [DONE]."""
    data = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [json.loads(one) for one in data if one != "[DONE]"]


def is_done(answer: httpx.Response) -> bool:
    return answer.text.endswith("data: [DONE]\n\n")
