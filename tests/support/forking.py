"""Processes forked from one that has imported PyTorch, engine and agent: each starts in a tenth of the CPU time.

The tests of `nodes/native/serve/test_process.py` and of whole deployments start engines and agents as users do.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "slurminfer.nodes.native.service",
        "slurminfer.nodes.native.engine.core",
        "slurminfer.nodes.native.model.parallel.parallel_model",
        "slurminfer.quant.awq.quantize",
        *(
            f"slurminfer.nodes.agent.{name}"
            for name in ("follower", "guard", "head", "placement.threads", "shared_job")
        ),
    ]
)


class Forked:
    """A process with the methods of subprocess.Popen that tests use."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._process = CONTEXT.Process(target=work, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self.returncode


class ForkedEngine(Forked):
    """An engine; `stdout` is a pipe."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        reading, writing = os.pipe()
        self.stdout: IO[str] = os.fdopen(reading, encoding="utf-8")
        super().__init__(_serve, list(arguments), dict(environ), os.getcwd(), DupFd(writing), DupFd(2))
        os.close(writing)


class ForkedCode(Forked):
    """A process that runs `code` as `python -c` does.

    Args:
        code: Python.
        arguments: the rest of sys.argv.
        environ: all of its environment.
        log: where its output and errors go.
    """

    def __init__(self, code: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as sink:
            place = (os.getcwd(), DupFd(sink.fileno()), DupFd(sink.fileno()))
            super().__init__(_run, code, list(arguments), dict(environ), *place)


def _serve(arguments: list[str], environ: dict[str, str], folder: str, output: Any, errors: Any) -> None:
    from slurminfer.core.processes.process import exit_at_once
    from slurminfer.nodes.native.__main__ import main

    _settle(environ, folder, output, errors)
    sys.argv = ["slurminfer.nodes.native", *arguments]
    exit_at_once(main(arguments))


def _run(code: str, arguments: list[str], environ: dict[str, str], folder: str, output: Any, errors: Any) -> None:
    from slurminfer.core.processes.process import exit_at_once

    _settle(environ, folder, output, errors)
    sys.argv = ["-c", *arguments]
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        exit_at_once(end.code if isinstance(end.code, int) else int(end.code is not None))


def _settle(environ: dict[str, str], folder: str, output: Any, errors: Any) -> None:
    for number, file in ((1, output), (2, errors)):
        inherited = file.detach()
        os.dup2(inherited, number)
        os.close(inherited)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
