"""Processes: run a short-lived one, describe how one has ended, end with the parent, print any text."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from typing import NoReturn

from ..errors import CommandError

_STDERR_TAIL = 2000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)


def run(
    argv: Sequence[str], *, timeout_s: float = 60.0, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run `argv` to its end and return its standard output.

    Raises CommandError where it is not installed, exits with another code than 0, or outlasts `timeout_s`.
    """
    return run_both(argv, timeout_s=timeout_s, env=env, stdin=stdin)[0]


def run_both(
    argv: Sequence[str], *, timeout_s: float = 60.0, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> tuple[str, str]:
    """As `run`, but return standard output and standard error, for commands that say what matters on the latter."""
    name = argv[0]
    try:
        done = subprocess.run(
            argv, input=stdin, env=env, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise CommandError(f"{name}: command not found") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{name}: no answer within {timeout_s:g} s") from error
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip()[-_STDERR_TAIL:]
        message = f"{name} failed with exit code {done.returncode}" + (f": {said}" if said else "")
        raise CommandError(message, returncode=done.returncode, stderr=said)
    return done.stdout, done.stderr


def describe_exit(returncode: int) -> str:
    """How a process has ended, of whom a parent has this return code: minus a signal's number, or its exit status."""
    if returncode >= 0:
        return f"exited with {returncode}"
    known = {member.value: member.name for member in signal.Signals}
    name = known.get(-returncode, f"signal {-returncode}")
    return f"killed by {name}" + (" (out of memory?)" if returncode == -signal.SIGKILL else "")


def die_with_parent() -> None:
    """Have the kernel end this process with the thread that has started it: a killed parent cannot clean up."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Have this process become the parent of its descendants whose parent ends, instead of init."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def exit_at_once(status: int) -> NoReturn:
    """End this process without taking apart what it holds: where that is PyTorch, it takes half a second of a CPU."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def accept_any_text() -> None:
    """Let standard output and error write out (`\\u00e9`) what their encoding lacks, instead of raising for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
