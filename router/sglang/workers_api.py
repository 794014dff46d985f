"""The workers of a running sglang-router, kept equal to those that may get requests, through its HTTP API.

GET /workers   POST /workers {"url", "api_key", ...}   DELETE /workers/ID
"""

import logging
from collections.abc import Iterable
from typing import Any

import aiohttp
import msgspec

from ...core.errors import SlurminferError
from ..control.messages import WorkerView
from .bridge import Bridge

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)

_log = logging.getLogger(__name__)


class _Known(msgspec.Struct):
    """A worker as sglang-router lists it."""

    id: str
    url: str
    load: int = 0  # requests in flight


_Life = tuple[int, str, int]  # a worker's slot, job and epoch


class _Listed(msgspec.Struct):
    workers: list[_Known]


class RustWorkers:
    """Brings workers into sglang-router and takes them out again. What it lists itself is what counts."""

    def __init__(self, origin: str, key: str) -> None:
        self._origin = origin
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers={"Authorization": f"Bearer {key}"})
        self._bridges: dict[_Life, Bridge] = {}

    async def close(self) -> None:
        """Close all ports, and the connections to sglang-router."""
        for bridge in self._bridges.values():
            bridge.close()
        await self._session.close()

    async def follow(self, workers: Iterable[WorkerView]) -> dict[int, int]:
        """Bring sglang-router in line with `workers`; its requests in flight, by worker's slot.

        Raises aiohttp.ClientError or OSError where it does not answer, msgspec.DecodeError where it says what it should
        not.
        """
        await self._bridge({(worker.slot, worker.job, worker.epoch): worker for worker in workers if worker.choosable})
        known = {worker.url: worker for worker in (await self._listed()).workers}
        wanted = {bridge.url: bridge for bridge in self._bridges.values()}
        for url in known.keys() - wanted.keys():
            await self._ask("DELETE", f"/workers/{known[url].id}")
        for url in wanted.keys() - known.keys():
            await self._ask("POST", "/workers", json=_request(url, wanted[url].worker))
        return {wanted[url].worker.slot: known[url].load for url in known.keys() & wanted.keys()}

    async def _bridge(self, wanted: dict[_Life, WorkerView]) -> None:
        for life in self._bridges.keys() - wanted.keys():
            self._bridges.pop(life).close()
        for life in wanted.keys() - self._bridges.keys():
            try:
                self._bridges[life] = Bridge(wanted[life])
            except (SlurminferError, OSError, ValueError) as error:
                _log.warning("worker %s cannot be reached: %s", wanted[life].id, error)
            else:
                await self._bridges[life].start()

    async def _listed(self) -> _Listed:
        return msgspec.json.decode(await self._ask("GET", "/workers"), type=_Listed)

    async def _ask(self, method: str, path: str, **options: Any) -> bytes:
        async with self._session.request(method, self._origin + path, **options) as answer:
            text = await answer.content.read(1 << 20)
            if answer.status >= 300:
                _log.warning("sglang-router answers %d to %s %s: %.300r", answer.status, method, path, text)
            return text


def _request(url: str, worker: WorkerView) -> dict[str, Any]:
    """What POST /workers takes. Whether a worker is healthy, the registry finds out."""
    return {"url": url, "api_key": worker.key, "model_id": worker.model, "disable_health_check": True}
