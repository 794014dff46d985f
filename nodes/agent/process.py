"""A child process of the agent: in a group of its own, with a log without secrets, never outliving its agent."""

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ...core.errors import EngineError
from ...core.logs.text import PLAIN, LogFormat, ends_itself, root_cause, tail
from ...core.processes.process import describe_exit, die_with_parent
from ...core.processes.python import SAFE_PATH_ENV
from ...core.slurm_env import WALLTIME_SIGNAL
from ...core.trust import OTHERS_RIGHTS, PRIVATE_FILE
from .guard import Guard
from .out_of_memory import MemoryWatch
from .redact import Redactor

_PIPE_BYTES = 1 << 20  # the most that Linux gives to unprivileged users; a process waits while its pipe is full
_READ_BYTES = 1 << 16
_SHELL_SIGNAL = 128
_GUESS = describe_exit(-signal.SIGKILL)
_KILLED = "killed by SIGKILL"
_OUTPUT_S = 1.0  # to write what an ended process has printed; its children may keep the pipe open


class EngineProcess:
    """A started engine. `stop` ends it and whatever it has started."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        log_format: LogFormat = PLAIN,
        *,
        secrets: Iterable[str] = (),
        pass_fds: Sequence[int] = (),
        after: Callable[[], None] = lambda: None,
        has_shell_status: bool = False,
    ) -> None:
        """Start the engine; raises EngineError if its interpreter or its log is not there.

        Args:
            log: file to append to what it prints, of mode 0600.
            secrets: what is written as *** there.
            pass_fds: descriptors that it gets besides its standard ones.
            after: what `stop` does when the process has ended.
            has_shell_status: it runs the engine as its child, and exits with 128 + N where signal N has ended that.
        """
        self.log, self._log_format, self._after = log, log_format, after
        self._has_shell_status, self._memory = has_shell_status, MemoryWatch()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # the user has many pipes open already
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            sink = _open_log(log)
            self._guard = Guard()
            self._process = self._started(argv, env, writer, pass_fds)
        except OSError as error:
            os.close(reader)
            raise EngineError(f"cannot start the engine {argv[0]}: {error.strerror}") from error
        finally:
            os.close(writer)
        self._pump = threading.Thread(target=_pump, args=[reader, sink, Redactor(secrets)], daemon=True)
        self._pump.start()

    def _started(
        self, argv: Sequence[str], env: Mapping[str, str], output: int, pass_fds: Sequence[int]
    ) -> "subprocess.Popen[bytes]":
        try:
            process = _start(argv, env, output, pass_fds)
        except OSError:
            self._guard.dismiss()
            raise
        self._guard.watch(process.pid)
        return process

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the engine's process group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; minus the number of a signal that has ended it."""
        code = self._process.poll()
        by_signal = self._has_shell_status and code is not None and _SHELL_SIGNAL < code < _SHELL_SIGNAL + signal.NSIG
        return _SHELL_SIGNAL - code if by_signal and code is not None else code

    def exit_reason(self, who: str = "engine") -> str:
        """How it ended and why, in one line."""
        code = self.exit_code()
        if code is not None:
            self._pump.join(_OUTPUT_S)
        said = tail(self.log)
        how, why = "still runs" if code is None else describe_exit(code), root_cause(said, self._log_format)
        if code == -signal.SIGKILL:
            # A process that another has killed could not write why.
            how, why = ("ended itself", why) if ends_itself(said, self._log_format) else (how, "")
        ended = f"{who} {how}" + (f": {why}" if why else "")
        return f"{self._with_memory(ended) if code else ended} (log: {self.log})"

    def _with_memory(self, ended: str) -> str:
        """What is said of an engine that has died, and that the kernel has killed one of its processes, if it has."""
        told = self._memory.told()
        if not told:
            return ended
        if _GUESS in ended:  # the engine itself, or a rank of it
            return ended.replace(_GUESS, f"{_KILLED}: {told}")
        return f"{ended}; a process of its cgroup was {_KILLED}: {told}"

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM to the whole group, SIGKILL for what is left after `grace_s`."""
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        self._guard.dismiss()
        self._after()
        self._pump.join(_OUTPUT_S)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _open_log(log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
    os.fchmod(sink, PRIVATE_FILE)
    return sink


def _start(
    argv: Sequence[str], env: Mapping[str, str], output: int, pass_fds: Sequence[int]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        env={**os.environ, **SAFE_PATH_ENV, **env},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=OTHERS_RIGHTS,
        pass_fds=pass_fds,
        preexec_fn=_before_exec,
    )


def _pump(reader: int, sink: int, redactor: Redactor) -> None:
    """Write what comes, without secrets, until no process has the pipe open. On a full disk lines are lost."""
    try:
        while data := os.read(reader, _READ_BYTES):
            _append(sink, redactor.feed(data))
        _append(sink, redactor.rest())
    finally:
        os.close(reader)
        os.close(sink)


def _append(sink: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(sink, data) :]


def _before_exec() -> None:
    """Slurm sends the walltime's signal to every process of a task; the engine must live on, to finish what it has."""
    signal.signal(WALLTIME_SIGNAL, signal.SIG_IGN)
    die_with_parent()
