"""The engine as a child process: in a group of its own, with a log of its own, never outliving its agent."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import EngineError
from ...core.logs import PLAIN, LogFormat, ends_itself, root_cause, tail
from ...core.process import describe_exit, die_with_parent
from .signals import WALLTIME_SIGNAL


class EngineProcess:
    """A started engine. `stop` ends it and whatever it has started."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, log_format: LogFormat = PLAIN) -> None:
        """Start the engine; raises EngineError if its interpreter is not there."""
        self.log, self._log_format = log, log_format
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            try:
                self._process = subprocess.Popen(
                    argv,
                    env={**os.environ, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_before_exec,
                )
            except OSError as error:
                raise EngineError(f"cannot start the engine {argv[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the engine's process group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def epitaph(self, who: str = "engine") -> str:
        """How it ended and why, in one line."""
        code, said = self._process.returncode, tail(self.log)
        how, why = "still runs" if code is None else describe_exit(code), root_cause(said, self._log_format)
        if code == -signal.SIGKILL:
            # Whom another kills has no time to say why.
            how, why = ("ended itself", why) if ends_itself(said, self._log_format) else (how, "")
        return f"{who} {how}" + (f": {why}" if why else "") + f" (log: {self.log})"

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM to the whole group, SIGKILL for what is left after `grace_s`."""
        self._signal_group(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._signal_group(signal.SIGKILL)
        self._process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _before_exec() -> None:
    """Slurm sends the walltime's signal to every process of a task; the engine must live on, to finish what it has."""
    signal.signal(WALLTIME_SIGNAL, signal.SIG_IGN)
    die_with_parent()
