"""A router in this process before recording workers, in a storm of bytes; over TLS too."""

import asyncio
import os
import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..router.conftest import Deployment
from ..support.loop import Loop
from ..support.waiting import eventually
from .recorder import Recorder, record_of
from .sessions import Sessions
from .wire import storm

pytestmark = [pytest.mark.process, pytest.mark.slow]

REQUESTS = 3000
SEED = int(os.environ.get("SLURMINFER_FUZZ_SEED") or random.SystemRandom().randrange(2**32))


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def deployment(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")
    deployment = Deployment(loop, tmp_path / "run")
    yield deployment
    deployment.close()


@pytest.mark.parametrize("tls", ["off", "self_signed"])
def test_nothing_that_came_without_the_key_reaches_a_worker(
    deployment: Deployment, loop: Loop, tls: str, caplog: pytest.LogCaptureFixture
) -> None:
    print(f"SLURMINFER_FUZZ_SEED={SEED}")
    deployment.configure(tls=tls)
    recorder = Recorder()
    for number in range(2):
        path = deployment.run.path.parent / f"{number}.sock"
        loop.run(recorder.serve(path))
        deployment.run.write_worker(record_of(f"canary-{number}", path))
    deployment.start_router(verify=False)
    eventually(lambda: deployment.http.get("/health").status_code == 200)
    sessions = Sessions(SEED, deployment.run.key())
    context = None
    if tls != "off":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tasks = loop.run(_count_tasks())
    outcome = asyncio.run(storm(int(deployment.url.rpartition(":")[2]), sessions, REQUESTS, context))
    assert not outcome.wrong
    assert not recorder.wrong
    assert not set(recorder.ids) - sessions.keyed
    assert len(recorder.ids) > REQUESTS // 20, "many requests are good"
    eventually(lambda: loop.run(_count_tasks()) <= tasks, "no task is left over")
    assert not any(worker["in_flight"] for worker in deployment.workers().values())
    assert not [record for record in caplog.records if record.exc_info]
    loop.run(recorder.close())


async def _count_tasks() -> int:
    return len(asyncio.all_tasks())
