"""Stub workers as processes, known to every router in its own way."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import msgspec

from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory

from .. import GIVEN
from .stub.__main__ import Configuration

MODEL = "stub"
POOL = "stub"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one worker listens: our router uses the Unix socket, the others the port."""

    socket: Path
    port: int

    @property
    def url(self) -> str:
        """The port's address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> bytes:
        """What a GET is answered with."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            said: bytes = answer.read()
        return said


class StubProcess:
    """A process that serves some stub workers."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        for path in configuration.sockets:
            Path(path).unlink(missing_ok=True)
        argv = [sys.executable, "-m", "benchmarks.router.stub"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=GIVEN)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(configuration) + b"\n")
        self.process.stdin.flush()
        lines = [self.process.stdout.readline() for _ in configuration.sockets]
        self.workers = [Address(Path(path), int(line)) for path, line in zip(configuration.sockets, lines, strict=True)]

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        with self.process:
            self.process.kill()

    def again(self, path: Path) -> "StubProcess":
        """Kill it and start its one worker anew: at the same port, and at the Unix socket `path`."""
        self.kill()
        ports = [worker.port for worker in self.workers]
        return StubProcess(msgspec.structs.replace(self._configuration, sockets=[str(path)], ports=ports))


class Fleet:
    """Stub workers, all in one process or each in one of its own."""

    def __init__(self, folder: Path, count: int, configuration: Configuration, *, apart: bool = False) -> None:
        self._folder, self._serials = folder, count
        paths = [str(folder / f"worker-{number}.sock") for number in range(count)]
        groups = [[path] for path in paths] if apart else [paths]
        self.processes = [StubProcess(msgspec.structs.replace(configuration, sockets=group)) for group in groups]

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()

    @property
    def workers(self) -> list[Address]:
        """All workers, in order."""
        return [worker for process in self.processes for worker in process.workers]

    @property
    def urls(self) -> list[str]:
        """Their TCP addresses."""
        return [worker.url for worker in self.workers]

    def restart(self, number: int) -> None:
        """Kill -9 the process of a worker that has one of its own, and start another at a new socket."""
        self.processes[number] = self.processes[number].again(self._folder / f"worker-{self._serials}.sock")
        self._serials += 1


class Records:
    """The records of workers in a run directory, kept as their agents would."""

    def __init__(self, run: RunDirectory, capacity: int, engine: str = "sglang") -> None:
        self._run, self._capacity, self._engine, self._serials = run, capacity, engine, 0
        self.current: dict[int, WorkerRecord] = {}  # by number of the worker in its fleet

    def add(self, number: int, worker: Address, gate: str | None = None) -> None:
        """A worker has become ready: a new one, whatever there was under that number. `gate`: it is on another node."""
        serial, self._serials = self._serials, self._serials + 1
        record = WorkerRecord(
            id=f"{POOL}-{serial}", pool=POOL, engine=self._engine, model=MODEL, state=WorkerState.READY,
            job=str(serial + 1), epoch=0, pid=os.getpid(), updated_at=time.time(), capacity=self._capacity, url=gate,
            host="elsewhere" if gate else socket.gethostname(),
            socket=str(worker.socket),
        )  # fmt: skip
        self._write(number, record)

    def gone(self, number: int, reason: str) -> None:
        """The worker's agent has said that it is no more."""
        self._write(number, msgspec.structs.replace(self.current[number], state=WorkerState.GONE, reason=reason))

    def beat(self) -> None:
        """All agents say that they live."""
        for number, record in self.current.items():
            self._write(number, record)

    def _write(self, number: int, record: WorkerRecord) -> None:
        self.current[number] = msgspec.structs.replace(record, updated_at=time.time())
        self._run.write_worker(self.current[number])
