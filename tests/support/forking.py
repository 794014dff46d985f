"""Processes forked from one that has imported PyTorch and the engine: each starts in a tenth of the CPU time.

The tests of `nodes/native/serve/test_process.py` and of whole deployments start the engine as users do.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from typing import IO, Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "slurminfer.nodes.native.service",
        "slurminfer.nodes.native.engine.core",
        "slurminfer.nodes.native.model.parallel.parallel_model",
        "slurminfer.quant.awq.quantize",
    ]
)


class ForkedEngine:
    """An engine with the methods of subprocess.Popen that tests use; `stdout` is a pipe."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        reading, writing = os.pipe()
        self.stdout: IO[str] = os.fdopen(reading, encoding="utf-8")
        work = (list(arguments), dict(environ), os.getcwd(), DupFd(writing), DupFd(2))
        self._process = CONTEXT.Process(target=_serve, args=work)
        self._process.start()
        os.close(writing)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a forked engine", timeout or 0)
        return self.returncode


def _serve(arguments: list[str], environ: dict[str, str], folder: str, output: Any, errors: Any) -> None:
    from slurminfer.core.processes.process import exit_at_once
    from slurminfer.nodes.native.__main__ import main

    for number, file in ((1, output), (2, errors)):
        inherited = file.detach()
        os.dup2(inherited, number)
        os.close(inherited)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["slurminfer.nodes.native", *arguments]
    exit_at_once(main(arguments))
