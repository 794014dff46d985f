"""Measuring in a process of its own, so that peak memory and time to load are the engine's: both ends of it.

A worker module reads its task as JSON from standard input and writes what it has measured to standard output.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ..core.errors import CommandError, EngineError, SlurminferError
from ..core.processes.process import accept_any_text, run
from ..core.processes.python import module_argv

_TIMEOUT_S = 6 * 3600.0  # large models on few cores take that long
Task = TypeVar("Task")
Result = TypeVar("Result")


def run_worker(module: str, task: msgspec.Struct, result: type[Result]) -> Result:
    """What `python -m module` measures. Raises EngineError with the last line of what a failed one says."""
    try:
        said = run(module_argv(module), stdin=msgspec.json.encode(task).decode(), timeout_s=_TIMEOUT_S)
    except CommandError as error:
        lines = error.stderr.splitlines()
        raise EngineError(lines[-1].removeprefix("error: ") if lines else str(error)) from error
    return msgspec.json.decode(said, type=result)


def work(measure: Callable[[Task], object], task: type[Task]) -> int:
    """The worker's `main`: measure the task on standard input; the exit status."""
    accept_any_text()
    try:
        measured = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=task))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(measured))
    return 0
