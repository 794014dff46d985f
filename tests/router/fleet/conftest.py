"""A registry before stub workers, in the loop beside the test."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from slurminfer.router.control.messages import Suspect, WorkerView
from slurminfer.router.fleet import registry
from slurminfer.router.fleet.registry import Registry

from ...support.loop import Loop
from ...support.waiting import eventually
from ..conftest import Deployment, Stub


class Fleet:
    """The workers of a deployment as its supervisor sees them."""

    def __init__(self, loop: Loop, deployment: Deployment) -> None:
        self._loop, self._deployment = loop, deployment
        self.run = deployment.run

    def add(self, worker_id: str) -> Stub:
        return self._deployment.add(worker_id)

    def start(self) -> None:
        self._loop.run(self._start())

    async def _start(self) -> None:
        self.registry = Registry(self.run)
        await self.registry.look()
        self._watch = asyncio.create_task(self.registry.watch())

    def stop(self) -> None:
        self._loop.run(self._stop())

    async def _stop(self) -> None:
        self._watch.cancel()
        await self.registry.close()

    def views(self) -> dict[str, WorkerView]:
        return {view.id: view for view in self.registry.views()}

    def choosable(self) -> list[str]:
        return [view.id for view in self.registry.views() if view.choosable]

    def wait_for(self, *choosable: str) -> None:
        eventually(lambda: self.choosable() == sorted(choosable), f"choosable: {choosable}")

    def suspect(self, worker_id: str, kind: str, reason: str = "it broke off") -> None:
        message = Suspect(slot=self.views()[worker_id].slot, reason=reason, kind=kind, at=0.0)
        self._loop.run(self._call(self.registry.suspect, message))

    async def _call(self, what: Any, *args: Any) -> Any:
        return what(*args)

    def worker(self, worker_id: str) -> Any:
        return next(worker for worker in self.registry.all() if worker.id == worker_id)


@pytest.fixture
def fleet(loop: Loop, empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Two workers and a registry that has not looked yet; it looks ten times a second."""
    monkeypatch.setattr(registry, "LOOK_INTERVAL_S", 0.1)
    fleet = Fleet(loop, empty)
    fleet.add("cpu-0")
    fleet.add("cpu-1")
    yield fleet
    if hasattr(fleet, "registry"):
        fleet.stop()
