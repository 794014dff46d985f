"""The pages behind a proxy that puts the endpoint below a path, as Open OnDemand does."""

from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from ...support.loop import Loop
from ..conftest import Deployment

pytestmark = pytest.mark.process

PREFIX = "/rnode/n1/30000/"


class Proxy:
    """Takes PREFIX away from what it is asked, and knows nothing else."""

    def __init__(self, loop: Loop, target: str) -> None:
        self._loop, self._target = loop, target
        loop.run(self._start())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", PREFIX + "{path:.*}", self._pass)
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{PREFIX}"

    async def _pass(self, request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name in ("Authorization", "Accept")}
        url = f"{self._target}/{request.match_info['path']}"
        async with self._http.get(url, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in ("Content-Type", "Content-Security-Policy")
                    if name in answer.headers}  # fmt: skip
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    def close(self) -> None:
        async def close() -> None:
            await self._http.close()
            await self._runner.cleanup()

        self._loop.run(close())


@pytest.fixture(scope="module")
def below(loop: Loop, lasting: Deployment) -> Iterator[Proxy]:
    proxy = Proxy(loop, lasting.url)
    yield proxy
    proxy.close()


def test_the_status_page_and_the_api_page_find_each_other_and_their_data(tab, below, lasting):
    tab.open(f"{below.url}#key={lasting.run.key()}")
    tab.wait_for("cpu-1", "#worker-rows")
    tab.run("document.querySelector('nav a[href=docs]').click()")
    tab.wait_for(f"{below.url}v1", "#base")  # the status page too shows paths of the API
    tab.wait_for("/v1/chat/completions")
    tab.run("Object.assign(document.getElementById('get/v1/models'), {open: true})")
    tab.wait_for(f"{below.url}v1/models", "[id='get/v1/models'] pre")
    tab.run("document.getElementById('to-status').click()")
    tab.wait_for("cpu-1", "#worker-rows")
    assert tab.errors() == []
