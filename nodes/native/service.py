"""The life of an engine process: hold the port, load, answer, drain, end."""

import asyncio
import gc
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from aiohttp import web

from ...core.errors import EngineError, ModelNotFoundError, SlurminferError
from ...core.machine.pytorch import import_pytorch
from ...core.net.connection_guard import limits_of_process
from ...core.net.http_limits import ConnectionGuard
from ...core.net.sockets import BACKLOG, allow_many_sockets
from ...quant.checkpoint.config import read_config
from ...quant.checkpoint.embedding import read_embedding
from .api.reasoning.tags import tags_of
from .api.requests.defaults import SamplingDefaults, defaults_of_model
from .api.server import Server
from .api.service import ServedModel, Service
from .api.template.chat_template import ChatTemplate
from .api.tools.families import family_of
from .engine.thread import EngineThread
from .listeners import listening, urls
from .options import EngineOptions, ServerOptions
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .engine.core import EngineCore
    from .model.step import Model

_GRACE_S = 5.0  # for requests in flight when told to end
_STOP_S = 5.0  # for the engine's last step
_CLOSE_S = 1.0  # for the last answers to leave
# Python's threads take turns so often. The engine's thread waits for its turn behind a thread that makes a big answer a
# hundred times in a step: by Python's default of 5 ms, half a second.
_TURN_S = 0.0005


# Starts what an engine needs besides its own process, and returns what loads it; is told how to end the engine.
Begin = Callable[[Callable[[EngineError], None]], "Callable[[], EngineCore]"]


def serve(options: EngineOptions, server: ServerOptions, begin: Begin | None = None) -> None:
    """Serve one model until SIGTERM or SIGINT. Raises SlurminferErrors only; the engine's thread may still be alive."""
    if not options.model.is_dir():
        raise ModelNotFoundError(f"model {options.model}: no such directory")
    allow_many_sockets()
    sys.setswitchinterval(_TURN_S)
    with listening(server) as listeners, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, server, listeners, begin or (lambda _: lambda: load(options))))


def load(options: EngineOptions) -> "EngineCore":
    """Import PyTorch and read the model: seconds."""
    import_pytorch()
    from .model.loading import load_model

    return core_of(load_model(options, at_once=True), options)


def core_of(model: "Model", options: EngineOptions) -> "EngineCore":
    """Make the engine of a loaded `model`, with the draft model that the options name.

    Raises EngineError for a draft that does not know the same tokens or does not fit, and what reading a model raises.
    """
    from .engine.core import EngineCore
    from .model.loading import device_of, load_draft
    from .model.logits_budget import logits_budget

    draft = load_draft(options, model) if options.speculative == "draft" else None
    logits = logits_budget(options, model.vocab_size, device_of(options.device).type)
    core = EngineCore(model, options, draft, logits=logits)
    gc.freeze()  # what is there stays: looking through it again and again would stall steps
    return core


async def _serve(
    options: EngineOptions, server: ServerOptions, listeners: Sequence[socket.socket], begin: Begin
) -> None:
    started_at = time.monotonic()
    told = _signals()
    engine = EngineThread()
    engine.start(begin(engine.fail))
    tokenizer = Tokenizer(options.model)
    template = ChatTemplate(options.model, tokenizer.special_tokens)
    await template.start()
    name = server.served_model_name or options.model.resolve().name
    defaults = defaults_of_model(options.model) if server.generation_config == "model" else SamplingDefaults()
    guard = ConnectionGuard(limits_of_process())
    embedding, generates = read_embedding(options.model), read_config(options.model).has_head
    served = ServedModel(
        name,
        tokenizer,
        template,
        defaults,
        embedding,
        _written_at(options.model),
        generates,
        family=family_of(server.tool_parser, template.source, knows_tools=template.knows_tools),
        tags=tags_of(template.source, tokenizer.added_names) if server.reasoning_parser == "auto" else None,
    )
    front = Server(served, engine, guard, keep_alive_s=server.sse_keep_alive_s)
    runner = web.AppRunner(front.app(), handler_cancellation=True, shutdown_timeout=_CLOSE_S)
    await runner.setup()
    for listener in listeners:
        await guard.listen(runner, listener, backlog=BACKLOG)
    print(f"listening on {urls(listeners)}, loading {name}", flush=True)
    announcement = asyncio.create_task(_announce(engine, started_at))
    await asyncio.wait([told, engine.ended], return_when=asyncio.FIRST_COMPLETED)
    announcement.cancel()
    guard.close()
    await _drain(front.service)
    await engine.stop(_STOP_S)
    await runner.cleanup()
    await front.service.close()
    _raise_failure(engine)


def _written_at(model: Path) -> int:
    """When a model was written, in Unix seconds: the same after each start. Caches change the time of its folder."""
    config = model / "config.json"
    return int((config if config.exists() else model).stat().st_mtime)


def _signals() -> asyncio.Future[None]:
    """Done when SIGTERM or SIGINT came, as often as they like."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: None if told.done() else told.set_result(None))
    return told


async def _announce(engine: EngineThread, started_at: float) -> None:
    await engine.ready.wait()
    print(f"ready after {time.monotonic() - started_at:.1f} s", flush=True)


async def _drain(front: Service) -> None:
    """Turn new requests away and wait a little for those in flight."""
    front.draining = True
    deadline = time.monotonic() + _GRACE_S
    while front.in_flight and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


def _raise_failure(engine: EngineThread) -> None:
    error = engine.ended.exception() if engine.ended.done() else None
    if isinstance(error, SlurminferError):
        raise error
    if error is not None:  # a defect: whoever repairs it needs the traceback
        traceback.print_exception(error, file=sys.stderr)
        raise EngineError(f"the engine has failed: {error!r}") from error
