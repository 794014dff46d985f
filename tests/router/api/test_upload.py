"""Uploads whose clients hang up at the worst moments."""

import asyncio
import os
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from slurminfer.core.rundir import RunDirectory
from slurminfer.router.api.upload import Upload
from slurminfer.router.batches.files import FileStore

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--'
)


class Content:
    """The body of a request, in one piece."""

    def __init__(self) -> None:
        self._pieces = [FORM, b""]

    async def readany(self) -> bytes:
        return self._pieces.pop(0)


@pytest.mark.parametrize("step", ["draft", "keep"])
def test_nothing_is_left_however_slow_the_filesystem_is(tmp_path, monkeypatch, step):
    run = RunDirectory(tmp_path / "run")
    run.create()
    store, begun, go = FileStore(run), threading.Event(), threading.Event()
    real = getattr(store, step)

    def slow(*given: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return real(*given)

    monkeypatch.setattr(store, step, slow)

    async def scene() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request: Any = SimpleNamespace(headers=headers, content=Content())
        receiving = asyncio.create_task(Upload(store, "one").receive(request))
        await asyncio.to_thread(begun.wait, 20)
        receiving.cancel()
        await asyncio.sleep(0)
        go.set()
        with suppress(asyncio.CancelledError):
            await receiving

    asyncio.run(scene())
    assert not [name for name in os.listdir(run.files_path) if name.startswith(".")]
