"""A process that renders chat templates, so that a template which never ends, or fills memory, ends this process alone.

It reads messages from standard input and answers each on standard output: 4 bytes of length, then msgpack. The first
message is a Setup, all others are RenderCalls; each gets a Reply. Run as a module.
"""

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jinja2
import msgspec

from .....core.machine.memory import give_back_freed
from .jinja import ChatError, PromptTooLargeError, RenderCall, Template

LENGTH_BYTES = 4
_TRIM_BYTES = 1 << 18  # after a call of so many, memory is given back


class Setup(msgspec.Struct, frozen=True):
    """A template, and what rendering may take: seconds of CPU time for a call, bytes of memory in all."""

    source: str
    tool_source: str | None  # where there is another one for messages with tools
    special_tokens: dict[str, str]
    cpu_seconds: float
    memory_bytes: int


class Reply(msgspec.Struct, frozen=True):
    """The rendered text, or why there is none. The first one has the variables that the template looks at."""

    text: str = ""
    error: str | None = None
    too_large: bool = False
    variables: list[str] = []


def main() -> None:
    """Answer until standard input ends, or a limit is passed."""
    setup = msgspec.msgpack.decode(_read() or b"", type=Setup)
    resource.setrlimit(resource.RLIMIT_DATA, (setup.memory_bytes, setup.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Slurm sends them to the whole job. The engine, which drains, ends this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with _limit(setup):
        templates = _compile(setup)
    _write(templates if isinstance(templates, Reply) else Reply(variables=_variables(templates)))
    while not isinstance(templates, Reply) and (raw := _read()) is not None:
        with _limit(setup):
            reply = _render(templates, raw)
        _write(reply)
        if len(raw) > _TRIM_BYTES:
            give_back_freed()


@contextmanager
def _limit(setup: Setup) -> Iterator[None]:
    """Let a signal end the process when this takes too much CPU time, whatever it is doing."""
    signal.setitimer(signal.ITIMER_PROF, setup.cpu_seconds)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _compile(setup: Setup) -> tuple[Template, Template] | Reply:
    """The templates for messages without and with tools."""
    try:
        plain = Template(setup.source, setup.special_tokens)
        return plain, plain if setup.tool_source is None else Template(setup.tool_source, setup.special_tokens)
    except jinja2.TemplateSyntaxError as error:
        return Reply(error=f"line {error.lineno}: {error}")
    except Exception as error:
        return Reply(error=f"{type(error).__name__}: {error}")


def _variables(templates: tuple[Template, Template]) -> list[str]:
    return sorted(templates[0].variables | templates[1].variables)


def _render(templates: tuple[Template, Template], raw: bytes) -> Reply:
    try:
        call = msgspec.msgpack.decode(raw, type=RenderCall)
        return Reply(templates[bool(call.tools)].render(call))
    except ChatError as error:
        return Reply(error=str(error), too_large=isinstance(error, PromptTooLargeError))
    except (MemoryError, ValueError, RecursionError) as error:
        return Reply(error=f"the messages cannot be read: {type(error).__name__}")


def _read() -> bytes | None:
    head = sys.stdin.buffer.read(LENGTH_BYTES)
    return sys.stdin.buffer.read(int.from_bytes(head, "big")) if len(head) == LENGTH_BYTES else None


def _write(reply: Reply) -> None:
    raw = msgspec.msgpack.encode(reply)
    sys.stdout.buffer.write(len(raw).to_bytes(LENGTH_BYTES, "big") + raw)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
