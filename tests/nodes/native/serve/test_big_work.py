"""Big work beside the event loop: small work passes it."""

import asyncio
import threading
from types import SimpleNamespace

from slurminfer.nodes.native.api.service import Service
from slurminfer.nodes.native.engine.thread import EngineThread
from slurminfer.nodes.native.tokenizer import Tokenizer


def test_small_work_does_not_wait_for_big_work(model_directory):
    go = threading.Event()

    async def work() -> list[str]:
        model = SimpleNamespace(tokenizer=Tokenizer(model_directory), template=SimpleNamespace(close=_nothing))
        service = Service(model, EngineThread(), 0)  # type: ignore[arg-type]
        big = [asyncio.ensure_future(service.beside(lambda: go.wait(60), big=True)) for _ in range(50)]
        try:
            done = [await service.beside(lambda: "small", big=False) for _ in range(50)]
            assert not any(each.done() for each in big)
            return done
        finally:
            go.set()
            assert all(await asyncio.gather(*big))
            await service.close()

    assert asyncio.run(work()) == ["small"] * 50


async def _nothing() -> None:
    pass
