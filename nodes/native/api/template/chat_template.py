"""Chat messages to a prompt, by the model's own Jinja template, rendered in a process of its own."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .....core.errors import CorruptModelError
from .....core.machine.memory import give_back_freed
from .....core.processes.python import module_argv
from ...options import SECRET_VARIABLES
from ...tokenizer import read_model_json
from .jinja import ChatError, PromptTooLargeError, RenderCall
from .plain_tools import with_calls_as_text, with_tools
from .process import LENGTH_BYTES, Reply, Setup

_CPU_SECONDS = 5.0  # for one prompt: real ones take milliseconds
_MEMORY_BYTES = 512 << 20
_END_S = 5.0  # for a process that has closed a pipe to end
_BIG_BYTES = 1 << 18  # of messages; bigger ones do not hold up smaller ones
_encode = msgspec.msgpack.encode


class ChatTemplate:
    """The chat template of one model. Rendering does not block the event loop, and is bounded in time and memory."""

    def __init__(
        self,
        directory: Path,
        special_tokens: Mapping[str, str],
        *,
        cpu_seconds: float = _CPU_SECONDS,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        """Raises CorruptModelError for files that cannot be read. `cpu_seconds` are those of one prompt."""
        self._directory = directory
        source, tool_source = find_sources(directory)
        self.source = tool_source or source or ""  # of what is rendered where there are tools
        self.variables: frozenset[str] = frozenset()  # that the template looks at; known once it is started
        self._lanes: tuple[_Lane, _Lane] | None = None
        if source is not None:
            setup = Setup(source, tool_source, dict(special_tokens), cpu_seconds, memory_bytes)
            self._lanes = _Lane(setup, keep=True), _Lane(setup, keep=False)

    @property
    def knows_tools(self) -> bool:
        """Whether the template itself writes tools. Otherwise they are written in the format of Hermes."""
        return "tools" in self.variables

    async def start(self) -> None:
        """Start the process. Raises CorruptModelError if the template is not Jinja."""
        if self._lanes is not None:
            reply = await self._lanes[0].start()
            if reply.error is not None:
                raise CorruptModelError(f"chat template of {self._directory}: {reply.error}")
            self.variables = frozenset(reply.variables)

    async def render(self, call: RenderCall) -> str:
        """The prompt that `call` asks for. Raises ChatError, PromptTooLargeError."""
        if self._lanes is None:
            raise ChatError("this model has no chat template: use /v1/completions")
        reply = await self._ask(call)
        adds_system = call.tools and not self.knows_tools and call.messages[0]["role"] == "user"
        if reply.error is not None and not reply.too_large and adds_system:
            reply = await self._ask(call, in_system=False)
        if reply.error is not None:
            raise PromptTooLargeError(reply.error) if reply.too_large else ChatError(reply.error)
        return reply.text

    async def _ask(self, call: RenderCall, *, in_system: bool = True) -> Reply:
        assert self._lanes is not None
        raw = await asyncio.to_thread(self._encode, call, in_system=in_system)  # of megabytes it takes a while
        if len(raw) <= _BIG_BYTES:
            return await self._lanes[False].ask(raw)
        reply = await self._lanes[True].ask(raw)
        del raw
        await asyncio.to_thread(give_back_freed)
        return reply

    def _encode(self, call: RenderCall, *, in_system: bool) -> bytes:
        """A call as the process gets it. Raises ChatError."""
        try:
            return _encode(self._plain(call, in_system=in_system))
        except OverflowError as error:
            raise ChatError("messages, tools or chat_template_kwargs have an integer beyond 64 bits") from error

    def _plain(self, call: RenderCall, *, in_system: bool) -> RenderCall:
        """The call, with what the template does not know of tools as text."""
        messages: list[Any] = call.messages
        if "reasoning_content" not in self.source and ".thinking" in self.source:
            messages = list(map(_with_thinking, messages))
        if "tool_calls" not in self.source:
            messages = with_calls_as_text(messages)
        if call.tools and not self.knows_tools:
            messages = with_tools(messages, call.tools, in_system=in_system)
        return msgspec.structs.replace(call, messages=messages)

    async def close(self) -> None:
        """End the processes."""
        for lane in self._lanes or ():
            await lane.close()


class _EndedError(Exception):
    """The process has ended before it answered."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code  # as of subprocess: minus the signal


class _Lane:
    """A rendering process, which does one thing at a time and is started again when it has ended."""

    def __init__(self, setup: Setup, *, keep: bool) -> None:
        """With `keep` the process stays for the next call; else its memory is given back at once."""
        self._setup, self._keep = setup, keep
        self._lock = asyncio.Lock()
        self._process: Process | None = None

    async def start(self) -> Reply:
        """Start the process; whether it could compile the template."""
        environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
        command = module_argv(f"{__package__}.process")
        self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        try:
            return await self._exchange(_encode(self._setup))
        except _EndedError as ended:
            return Reply(error=self._why_ended(ended.code))

    async def ask(self, call: bytes) -> Reply:
        """The answer to a call. A caller that is cancelled meanwhile leaves the process in order."""
        await self._lock.acquire()
        work = asyncio.ensure_future(self._answer(call))
        work.add_done_callback(lambda _: self._lock.release())
        return await asyncio.shield(work)

    async def _answer(self, call: bytes) -> Reply:
        """The answer, from a new process if somebody kills the one at work; not twice, as it may be for its memory."""
        for _ in range(2):
            try:
                return await self._try(call)
            except _EndedError as ended:
                code = ended.code
            if code != -signal.SIGKILL:
                break
        return Reply(error=self._why_ended(code))

    async def _try(self, call: bytes) -> Reply:
        if self._has_ended():
            await self.close()
        if self._process is None:
            begun = await self.start()
            if begun.error is not None:
                return begun
        reply = await self._exchange(call)
        if not self._keep:
            await self.close()
        return reply

    async def _exchange(self, message: bytes) -> Reply:
        """What the process says to a message. Raises _EndedError."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
            await self._process.stdin.drain()
            head = await self._process.stdout.readexactly(LENGTH_BYTES)
            raw = await self._process.stdout.readexactly(int.from_bytes(head, "big"))
            return msgspec.msgpack.decode(raw, type=Reply)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _EndedError(await self._end()) from error

    def _has_ended(self) -> bool:
        """Whether the process has been ended since the last call."""
        process = self._process
        if process is None or process.stdin is None:
            return False
        return process.returncode is not None or process.stdin.is_closing()

    def _why_ended(self, code: int) -> str:
        if code == -signal.SIGPROF:
            return f"the chat template takes more than {self._setup.cpu_seconds:g} s of CPU time"
        reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"the chat template has ended the process that renders it ({reason})"

    async def _end(self) -> int:
        """How the process has ended, which has closed a pipe; killed only if it lives on.

        asyncio's `kill` collects the exit status of a process that has just ended, and then it is lost.
        """
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        return await self.close()

    async def close(self) -> int:
        """End the process, if there is one, and say how it has ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # until all of its pipes are closed
        return await process.wait()


def _with_thinking(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with its reasoning under the name that some templates have for it, such as those of gpt-oss.

    They refuse it beside content where there are calls.
    """
    thought = message.get("reasoning_content")
    if not thought or "thinking" in message or (message.get("tool_calls") and message["content"]):
        return message
    return {**message, "thinking": thought}


def find_source(directory: Path) -> str | None:
    """The chat template of a model; None if it has none. Raises CorruptModelError."""
    return find_sources(directory)[0]


def find_sources(directory: Path) -> tuple[str | None, str | None]:
    """The chat template of a model, and the one for messages with tools, where that is another.

    None where there is none. Raises CorruptModelError.
    """
    source = _read(directory / "chat_template.jinja")
    tool_source = _read(directory / "additional_chat_templates" / "tool_use.jinja")
    template = read_model_json(directory, "tokenizer_config.json").get("chat_template")
    named = {entry["name"]: entry["template"] for entry in template} if isinstance(template, list) else {}
    source = source or named.get("default") or (template if isinstance(template, str) else None)
    tool_source = tool_source or named.get("tool_use")
    return source or tool_source, tool_source if source else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
