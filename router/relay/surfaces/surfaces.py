"""Which APIs are translated, and how a request to one of them becomes a request to chat completions."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import msgspec

from ...http.messages import Head, Reply, Request, Whole
from ..answers import JSON
from .messages.surface import CountTokens, Messages
from .reply import TranslatingReply
from .translation import Surface

# By the name that `[router] translate` has for an API: its paths.
SURFACES: Mapping[str, Mapping[str, Surface]] = {
    "messages": {"/v1/messages": Messages(), "/v1/messages/count_tokens": CountTokens()},
}
_CHAT = "/v1/chat/completions"


class Surfaces:
    """The APIs that one relay translates.

    Args:
        names: of those, as in `[router] translate`.
    """

    def __init__(self, names: Collection[str]) -> None:
        chosen = [surfaces for name, surfaces in SURFACES.items() if name in names]
        self._surfaces = {path: surface for surfaces in chosen for path, surface in surfaces.items()}

    def mark(self, head: Head) -> None:
        """Note in a head how errors read in its API, so that each answer has that shape, whoever gives it."""
        surface = self._surfaces.get(head.path)
        if surface is not None:
            head.reshape = partial(_reshaped, surface, head.id)

    def enter(self, request: Request, reply: Reply) -> tuple[Request, Reply]:
        """The request to chat completions for a request, and its reply; both as they are where nothing is translated.

        Raises TranslationError.
        """
        head = request.head
        surface = self._surfaces.get(head.path)
        if surface is None:
            return request, reply
        translation = surface.translate(head, request.body)
        return Request(_to_chat(head), translation.body), TranslatingReply(reply, translation)


def _to_chat(head: Head) -> Head:
    headers = [header for header in head.headers if header[0] != b"content-type"]
    headers.append(JSON)
    return msgspec.structs.replace(
        head, target=_CHAT.encode(), path=_CHAT, asked_path=head.path, headers=headers, fields=dict(headers)
    )


def _reshaped(surface: Surface, request_id: str, answer: Whole) -> Whole:
    """An error answer in the shape of an API. One that is no JSON object stays as it is."""
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, Any])
    except (ValueError, RecursionError):
        return answer
    body = msgspec.json.encode(surface.error(answer.status, found, request_id))
    return Whole(answer.status, body, answer.headers, answer.close)
