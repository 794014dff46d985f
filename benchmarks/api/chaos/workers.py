"""Engines that faults happen to, and others in their place."""

import argparse
import asyncio
import time
from pathlib import Path

from ...failover.engines import Engine
from ...router.fleet import Records

KILL, KILL_CORE, STOP = "kill", "kill core", "stop"  # SIGKILL to all of an engine, or its largest process; SIGSTOP
_START_S = 120.0
_STOPPED_S = 30.0  # after which a stopped engine is ended, as by Slurm: some streams have to wait for it


class Workers:
    """Engines that a router knows by `records` as soon as they serve.

    Args:
        given: what `Engine` is told.
        engines: that serve already, in the order of their records.
        replaces: whether another one is started for one that a fault has happened to.
    """

    def __init__(
        self, given: argparse.Namespace, folder: Path, engines: list[Engine], records: Records, *, replaces: bool
    ) -> None:
        self._given, self._folder, self._records, self._replaces = given, folder, records, replaces
        self._engines = dict(enumerate(engines))
        self._started = len(engines)
        self._starting: set[asyncio.Task[None]] = set()
        self._struck: list[Engine] = []
        self._ending: list[asyncio.TimerHandle] = []

    def strike(self, worker: str, fault: str) -> None:
        """Let a fault happen to the worker of that id, and start another one if lost ones are replaced."""
        number = next(number for number, record in self._records.current.items() if record.id == worker)
        engine = self._engines.pop(number)
        self._struck.append(engine)
        if fault == KILL:
            engine.end()
            self._records.gone(number, "killed")
        elif fault == KILL_CORE:
            engine.kill_core()
        else:
            engine.stop()
            self._ending.append(asyncio.get_running_loop().call_later(_STOPPED_S, engine.end))
        self._records.current.pop(number)
        if self._replaces:
            self._starting.add(asyncio.create_task(self._start()))

    async def ready(self) -> None:
        """Return once those serve that have been started for others. Raises RuntimeError."""
        await asyncio.gather(*self._starting)
        self._starting.clear()
        self._records.beat()

    def clear(self) -> None:
        """End what is left of engines that faults have happened to."""
        for timer in self._ending:
            timer.cancel()
        self._ending.clear()
        for engine in self._struck:
            engine.end()
        self._struck.clear()

    def close(self) -> None:
        """End all of them."""
        self.clear()
        for engine in self._engines.values():
            engine.end()

    async def _start(self) -> None:
        number, self._started = self._started, self._started + 1
        engine = self._engines[number] = Engine(self._given, self._folder, number)
        await asyncio.to_thread(engine.wait, time.monotonic() + _START_S)
        self._records.add(number, engine.address)
