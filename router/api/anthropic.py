"""The pages for Anthropic's clients, which are known by a header: the list of models, and errors, in their shapes."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ...core.net.anthropic import VERSION_HEADER, error_body
from ...core.net.openai import REQUEST_ID_HEADER

Json = dict[str, Any]


def is_anthropic(request: web.Request) -> bool:
    """Whether a client of Anthropic's asks."""
    return VERSION_HEADER in request.headers


def model_info(card: Mapping[str, Any]) -> Json:
    """A model, by its card of OpenAI's API."""
    created = datetime.fromtimestamp(int(card.get("created") or 0), UTC)
    info = {
        "type": "model",
        "id": card["id"],
        "display_name": card["id"],
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }
    longest = card.get("max_model_len")
    return info | ({"max_input_tokens": longest, "max_tokens": longest} if longest else {})


def model_list(cards: Sequence[Mapping[str, Any]]) -> Json:
    """All models on one page, whatever `limit` says."""
    data = [model_info(card) for card in cards]
    ids = [info["id"] for info in data] or [None]
    return {"data": data, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}


def with_anthropics_error(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """An answer; an error for a client of Anthropic's in the shape that it knows."""
    if response.status < 400 or not is_anthropic(request) or not isinstance(response, web.Response):
        return response
    body = error_body(response.status, json.loads(response.text or "{}"), request.headers.get(REQUEST_ID_HEADER, ""))
    headers = {name: value for name, value in response.headers.items() if name in ("Allow", "Retry-After")}
    return web.json_response(body, status=response.status, headers=headers)
