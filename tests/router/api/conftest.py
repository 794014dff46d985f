"""The supervisor's pages before a fleet of stub workers, asked as a relay asks them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from aiohttp import web

from slurminfer.core.spec.files import parse_spec
from slurminfer.router.api.app import Pages
from slurminfer.router.api.sources import Sources
from slurminfer.router.batches.store import BatchStore
from slurminfer.router.control.reports import Reports
from slurminfer.router.fleet.batches import Batches
from slurminfer.router.fleet.controller import ControllerReport
from slurminfer.router.fleet.demand import Demand
from slurminfer.router.fleet.outlook import outlooks
from slurminfer.router.fleet.queue import read_queue
from slurminfer.router.tenants.tenant import Priority, Tenant, Usage

from ...support.loop import Loop
from ..conftest import Deployment, Stub
from ..fleet.conftest import Fleet

SPEC = """\
name = "test"
[model]
path = "stub-model"
[[pool]]
name = "stubs"
[[pool]]
name = "large"
[pool.model]
path = "large-model"
[[router.rule]]
model = "gpt-*"
tenant = "course"
serve = "large-model"
[[router.rule]]
model = "claude-*"
min_prompt_tokens = 9
serve = "large-model"
[[router.rule]]
model = "claude-*"
serve = "stub-model"
[[router.rule]]
model = "small"
serve = "stub-model"
"""
TENANTS = [
    Tenant(name="owner", slot=0, digest="", admin=True, priority=Priority.INTERACTIVE),
    Tenant(name="metrics", slot=1, digest="", metrics_only=True),
    Tenant(name="course", slot=2, digest="", requests_per_minute=60, account="physics"),
]


class Site:
    """The pages, and what they are made of."""

    def __init__(self, loop: Loop, deployment: Deployment) -> None:
        self._loop = loop
        self.stub: Stub
        self.fleet, self.run = Fleet(loop, deployment), deployment.run
        self.reports, self.demand, self.in_flight = Reports(), Demand(), {0: 3}
        self.controller = ControllerReport()
        self.batches = Batches()
        self.usage = {"course": Usage(requests=5, prompt_tokens=100, cached_tokens=40, generated_tokens=20)}

    def start(self) -> None:
        self.fleet.start()
        self._loop.run(self._start())

    async def _start(self) -> None:
        self.controller.hear(self.run.read_fleet())
        spec = parse_spec(SPEC)
        sources = Sources(
            spec=spec,
            registry=self.fleet.registry,
            reports=self.reports,
            demand=self.demand,
            in_flight=lambda slot: self.in_flight.get(slot, 0),
            tenants=lambda: TENANTS,
            usage=lambda: self.usage,
            tokens_today=lambda: {"course": 70},
            queue=lambda: read_queue(self.run),
            controller=self.controller,
            batches=self.batches,
            outlooks=lambda: outlooks(
                spec, self.fleet.registry.all(), read_queue(self.run), self.controller, time.time()
            ),
            responses=None,
            openai_batches=BatchStore(self.run),
            served_at=1_700_000_000,
            endpoint=lambda: "http://10.0.0.7:30000",
        )
        self._runner = web.AppRunner(Pages(sources).app(), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def stop(self) -> None:
        self._loop.run(self._runner.cleanup())
        self.fleet.stop()

    def ask(self, path: str, tenant: str | None = "owner", method: str = "GET") -> httpx.Response:
        headers = {} if tenant is None else {"X-Slurminfer-Tenant": tenant, "X-Slurminfer-Admin": "0"}
        if tenant == "owner":
            headers["X-Slurminfer-Admin"] = "1"
        return httpx.request(method, self._url + path, headers=headers, timeout=20)

    def json(self, path: str, tenant: str | None = "owner") -> Any:
        return self.ask(path, tenant).json()


@pytest.fixture
def site(loop: Loop, empty: Deployment) -> Iterator[Site]:
    """One worker, whose pages are to be started."""
    site = Site(loop, empty)
    site.stub = site.fleet.add("stubs-0")
    yield site
    site.stop()
