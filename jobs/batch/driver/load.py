"""What an endpoint says of its load: slurminfer's router at /workers, an engine that is asked directly at /metrics."""

from dataclasses import dataclass

import msgspec

from ....router.fleet.engine_load import parse_load
from ....router.fleet.worker import ASSUMED_CAPACITY
from .endpoint import Endpoint
from .http.reply import AnswerTooLongError, Reply

_ENGINES = ("vllm", "sglang", "native")


@dataclass(frozen=True, kw_only=True)
class Load:
    """One look at an endpoint's workers."""

    capacity: int | None = None  # requests that the ready workers compute at once; None: not told
    may_be_added: int = 0  # requests that workers could compute which would be started for them
    workers: int = 1  # that are ready
    running: int = 0  # requests, anybody's
    waiting: int = 0  # requests that wait in engines, anybody's


class _Worker(msgspec.Struct):
    state: str
    healthy: bool
    capacity: int | None = None
    running: int | None = None
    waiting: int | None = None


class _Workers(msgspec.Struct):
    workers: list[_Worker]
    may_be_added: int = 0


async def read_load(endpoint: Endpoint) -> Load | None:
    """The endpoint's load; None where it does not tell. Raises UnreachableError."""
    try:
        told = parse_workers(await endpoint.get("/workers"))
        return told or parse_metrics(await endpoint.get("/metrics"))
    except AnswerTooLongError:
        return None


def parse_workers(reply: Reply) -> Load | None:
    """The load in an answer of slurminfer's router; None where it is not one."""
    try:
        told = msgspec.json.decode(reply.body, type=_Workers)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    ready = [worker for worker in told.workers if worker.healthy and worker.state == "ready"]
    return Load(
        capacity=sum(worker.capacity or ASSUMED_CAPACITY for worker in ready),
        may_be_added=max(0, told.may_be_added),
        workers=len(ready),
        running=sum(worker.running or 0 for worker in ready),
        waiting=sum(worker.waiting or 0 for worker in ready),
    )


def parse_metrics(reply: Reply) -> Load | None:
    """The load in an engine's metrics; None where it is no engine's whose names are known."""
    if reply.status != 200:
        return None
    text = reply.body.decode(errors="replace")
    for engine in _ENGINES:
        try:
            load, _ = parse_load(engine, text)
        except ValueError:
            continue
        if load.running is not None and load.waiting is not None:
            return Load(running=load.running, waiting=load.waiting)
    return None
