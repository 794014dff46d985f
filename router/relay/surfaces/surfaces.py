"""Which APIs are translated, and how a request to one of them becomes a request to chat completions."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from ....core.background.fair_threads import FairThreads
from ....core.net.anthropic import VERSION_HEADER
from ....core.net.compression import BodyError
from ...http.messages import Head, Reply, Request, Whole
from ..answers import JSON, failure
from .counting import Engines
from .messages.surface import CountTokens, Messages
from .responses.count import InputTokens
from .responses.kept import KeptResponses
from .responses.surface import Responses
from .translation import Surface, Translation, TranslationError

# Anthropic's clients are known by a header wherever they ask.
_ANTHROPIC, _VERSION = Messages(FairThreads()), VERSION_HEADER.encode()

_TIMES_HELD = 2  # what is read for a request is in memory as it was read, and as it is sent

_log = logging.getLogger(__name__)


class Surfaces:
    """The APIs that one relay translates.

    Args:
        names: of those, as in `[router] translate`.
        kept: where responses are kept.
        engines: of the workers of a model, by the name that clients use for it.
        forward: sends a request to chat completions to a worker.
        refuse: answers a request that goes to no worker.
    """

    def __init__(
        self,
        names: Collection[str],
        kept: KeptResponses,
        engines: Engines,
        *,
        forward: Callable[[Request, Reply], None],
        refuse: Callable[[Request, Reply, Whole], None],
    ) -> None:
        threads = FairThreads()
        known: Mapping[str, Mapping[str, Surface[Any]]] = {
            "messages": {"/v1/messages": Messages(threads), "/v1/messages/count_tokens": CountTokens(threads, engines)},
            "responses": {
                "/v1/responses": Responses(kept, threads),
                "/v1/responses/input_tokens": InputTokens(kept, threads, engines),
            },
        }
        chosen = [surfaces for name, surfaces in known.items() if name in names]
        self._surfaces = {path: surface for surfaces in chosen for path, surface in surfaces.items()}
        self._forward, self._refuse = forward, refuse
        self._waiting: set[asyncio.Task[None]] = set()

    def mark(self, head: Head) -> None:
        """Note in a head how errors read in its API, so that each answer has that shape, whoever gives it."""
        surface = self._surfaces.get(head.path)
        if surface is None and (_VERSION in head.fields or head.path.startswith("/v1/messages")):
            surface = _ANTHROPIC
        if surface is not None:
            head.reshape = partial(_reshaped, surface, head.id)
            head.answer_headers = [*head.answer_headers, (b"request-id", head.id.encode("latin-1"))]

    def enter(self, request: Request, reply: Reply) -> None:
        """Send a request to a worker: as one to chat completions, or as it is where nothing is translated."""
        surface = self._surfaces.get(request.head.path)
        if surface is None:
            self._forward(request, reply)
            return
        try:
            found = surface.translate(request.head, request.body)
        except TranslationError as error:
            self._refuse(request, reply, _refusal(error))
            return
        if isinstance(found, Coroutine):
            self._wait_for(surface, found, request, reply)
        else:
            self._translated(surface, found, request, reply)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._waiting:
            task.cancel()

    def _translated(self, surface: Surface[Any], translation: Translation, request: Request, reply: Reply) -> None:
        standing = Request(_standing_for(request.head, translation.path), translation.body)
        self._forward(standing, surface.reply(reply, translation))

    def _wait_for(
        self, surface: Surface[Any], coming: Coroutine[Any, Any, Translation], request: Request, reply: Reply
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._later(surface, coming, request, reply))
        self._waiting.add(task)
        reply.on_lost = task.cancel

        def over(task: asyncio.Task[None]) -> None:
            self._waiting.discard(task)
            coming.close()  # one that was cancelled before it began

        task.add_done_callback(over)

    async def _later(
        self, surface: Surface[Any], coming: Coroutine[Any, Any, Translation], request: Request, reply: Reply
    ) -> None:
        try:
            translation = await coming
            reply.hold(_TIMES_HELD * len(translation.body))  # it may be far larger than what the client has sent
        except TranslationError as error:
            self._refuse(request, reply, _refusal(error))
        except BodyError as error:
            self._refuse(request, reply, failure(error.status, error.message))
        except Exception:
            _log.exception("POST %s failed", request.head.path)
            self._refuse(request, reply, failure(500, "internal error"))
        else:
            self._translated(surface, translation, request, reply)


def _refusal(error: TranslationError) -> Whole:
    return failure(error.status, error.message, param=error.param, code=error.code)


def _standing_for(head: Head, path: str) -> Head:
    """The head of the request to `path` that stands for a client's."""
    headers = [header for header in head.headers if header[0] != b"content-type"]
    headers.append(JSON)
    return msgspec.structs.replace(
        head, target=path.encode(), path=path, asked_path=head.path, headers=headers, fields=dict(headers)
    )


def _reshaped(surface: Surface[Any], request_id: str, answer: Whole) -> Whole:
    """An error answer in the shape of an API. One that is no JSON object stays as it is."""
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return answer
    body = msgspec.json.encode(surface.error(answer.status, found, request_id))
    return Whole(answer.status, body, answer.headers, answer.close)
