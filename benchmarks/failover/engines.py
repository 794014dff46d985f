"""Engines as their adapters start them, without agents: each at a Unix socket of its own."""

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.engines.launch import EngineLaunch
from slurminfer.nodes.engines.table import adapter_of

from .. import GIVEN
from ..router.fleet import MODEL, Address


class Engine:
    """One server and all processes that it has started."""

    def __init__(self, given: argparse.Namespace, folder: Path, number: int) -> None:
        self.address = Address(folder / f"engine-{number}.sock", 0)
        self.log = folder / f"engine-{number}.log"
        model = ModelSpec(path=str(given.model), name=MODEL, dtype=given.dtype, context_length=given.context)
        pool = PoolSpec(
            engine=given.engine, python=given.python, extra_args=tuple(given.extra), gpus_per_node=given.gpus,
            cpus_per_task=given.threads, max_running_requests=64,
        )  # fmt: skip
        launch = EngineLaunch(
            model=model, pool=pool, address="127.0.0.1", socket=self.address.socket, key="",
            private=folder / f"private-{number}", threads=given.threads,
        )  # fmt: skip
        launch.private.mkdir(0o700)
        adapter = adapter_of(given.engine)
        env = GIVEN | {"OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1"} | adapter.env(launch)
        env |= dict(word.partition("=")[::2] for word in given.env)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                adapter.argv(launch), stdout=log, stderr=log, env=env, start_new_session=True
            )
        self._family: list[psutil.Process] = []

    def wait(self, until: float) -> None:
        """Return when it serves. Raises RuntimeError."""
        while self.process.poll() is None and time.monotonic() < until:
            if self._is_healthy():
                self._family = psutil.Process(self.process.pid).children(recursive=True)
                return
            time.sleep(0.5)
        said = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"the engine does not start ({self.process.poll()}): {said}")

    def kill(self) -> None:
        """SIGKILL to its server, and to nothing else of it."""
        self.process.kill()

    def kill_core(self) -> None:
        """SIGKILL to the process that computes: the child with most memory."""
        max(self._family, key=lambda process: process.memory_info().rss).kill()

    def stop(self) -> None:
        """SIGSTOP to all that there is of it: it hangs until it is ended."""
        for pid in (self.process.pid, *(process.pid for process in self._family)):
            os.kill(pid, signal.SIGSTOP)

    def end(self) -> None:
        """SIGKILL to all that there is of it."""
        for process in [*self._family, *self._children()]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.kill()
        self.process.wait()

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("engine", timeout=5)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self.address.socket))
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Engines:
    """The workers, started one after the other: each of them looks how much memory of its GPU is free."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._given, self._folder = given, folder
        self.engines: list[Engine] = []

    def __enter__(self) -> "Engines":
        try:
            for number in range(self._given.workers):
                began = time.monotonic()
                self.engines.append(Engine(self._given, self._folder, number))
                self.engines[-1].wait(began + self._given.start_seconds)
                print(f"engine {number} is ready after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for engine in self.engines:
            engine.end()
