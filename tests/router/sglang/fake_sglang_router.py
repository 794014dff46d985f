"""A fake sglang-router: its command line, its API for workers, and requests that go to the first worker. No Rust.

It runs under the name `sglang_router.launch_router`, as the real one does.
"""

import asyncio
import os
import signal
import sys
import uuid
from itertools import pairwise
from typing import Any

import aiohttp
from aiohttp import web

IS_A_FAKE = "X-Fake-Sglang-Router"


class Fake:
    def __init__(self, key: str) -> None:
        self._key = key
        self._workers: dict[str, dict[str, Any]] = {}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._admit])
        app.router.add_get("/workers", self._list)
        app.router.add_post("/workers", self._add)
        app.router.add_delete("/workers/{id}", self._remove)
        app.router.add_post("/v1/{path:.*}", self._forward)
        return app

    @web.middleware
    async def _admit(self, request, handler):
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.Response(status=401)
        return await handler(request)

    async def _list(self, request):
        listed = [
            {"id": one, "url": worker["url"], "model_id": worker["model_id"], "load": worker["load"]}
            for one, worker in self._workers.items()
        ]
        return web.json_response({"workers": listed}, headers={IS_A_FAKE: str(os.getpid())})

    async def _add(self, request):
        one = str(uuid.uuid4())
        self._workers[one] = await request.json() | {"load": 0}
        return web.json_response({"status": "accepted", "worker_id": one}, status=202)

    async def _remove(self, request):
        self._workers.pop(request.match_info["id"], None)
        return web.json_response({"status": "accepted"}, status=202)

    async def _forward(self, request):
        if not self._workers:
            return web.Response(status=503)
        worker = next(iter(self._workers.values()))
        headers = {"Authorization": f"Bearer {worker['api_key']}", "Content-Type": "application/json"}
        worker["load"] += 1
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(worker["url"] + request.path, data=await request.read(), headers=headers) as answer,
            ):
                response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
                await response.prepare(request)
                async for data in answer.content.iter_any():
                    await response.write(data)
                return response
        finally:
            worker["load"] -= 1


async def main(words: list[str]) -> None:
    given = dict(pairwise(words))
    runner = web.AppRunner(Fake(given["--api-key"]).app())
    await runner.setup()
    await web.TCPSite(runner, given["--host"], int(given["--port"])).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv))
