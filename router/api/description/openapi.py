"""GET /openapi.json: an OpenAPI 3.1 description of the endpoint. It has no data of the deployment, so it needs no key.

Engines know many more fields of requests than stand here, and the router passes on all of them.
"""

import functools
from collections.abc import Collection
from typing import Any

from aiohttp import web

from ....core.net.openai import PRIORITY_HEADER, REQUEST_ID_HEADER
from ...batches import limits
from ...endpoints import ENDPOINTS, TOKENIZER_INFO
from ...responses.limits import MOST_LISTED
from ...tenants.tenant import Priority
from .answer_schemas import TEXT, answer_schemas, ref
from .request_schemas import SCHEMAS, request_schemas

_Json = dict[str, Any]

_ERRORS = {
    400: "the request is malformed, or the engine refuses it",
    401: "no key, or a wrong one",
    403: "the deployment's own key is needed",
    404: "no such model or path",
    405: "another method is needed; the header Allow says which",
    408: "the body stopped coming",
    413: "the body is too large",
    414: "the target is too long",
    415: "the body has an unknown Content-Encoding",
    417: "Expect has another value than 100-continue",
    429: "a limit of the key is reached, or the queue is full; the header Retry-After says when to come back",
    431: "the head is too large",
    500: "the deployment's filesystem is in trouble; the router's log says more",
    502: "workers were lost while they worked on the request, or the answer broke off",
    503: "nobody can answer now; the header Retry-After says when to come back",
    507: "the deployment's filesystem has no room left",
}
_OF_ANY = (400, 401, 408, 413, 414, 415, 417, 431, 503)
_OF_GENERATION = (*_OF_ANY, 404, 405, 429, 502)
_SUMMARIES = {
    "chat/completions": "the next message of a conversation",
    "completions": "what follows a text",
    "responses/input_tokens": "how many tokens a request for a response has",
    "responses": "an answer that the conversation may go on with (OpenAI's responses API)",
    "messages": "the next message of a conversation (Anthropic's API)",
    "messages/count_tokens": "how many tokens a conversation has (Anthropic's API)",
    "embeddings": "vectors of texts, where the model makes them",
    "tokenize": "the tokens of a text, or of the prompt that a chat becomes; no tokens are billed",
    "detokenize": "the text of tokens; no tokens are billed",
}
_FORMS = {"audio/transcriptions", "audio/translations"}
_STREAMED = {"chat/completions": "Answer", "completions": "Answer", "responses": "Response", "messages": "Message"}
_ANSWERS = {**_STREAMED, "messages/count_tokens": "TokenCount"}
_GENERATION, _MODELS, _BATCHES, _DEPLOYMENT = "Generation", "Models", "Files and batches", "Deployment"
_ORDERS = {"enum": ["asc", "desc"]}
_ABOUT = """OpenAI's API before workers on Slurm. Clients take this server's address with /v1 as their base URL,
and those of Anthropic's API without.

The API key goes into the header `Authorization: Bearer KEY`, or `X-Api-Key: KEY`. Each answer has an `X-Request-Id`."""


def openapi(request: web.Request) -> web.Response:
    """The description."""
    return web.json_response(description())


@functools.cache
def description() -> _Json:
    """The description as a value that JSON can have."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "slurminfer", "version": "1", "description": _ABOUT},
        "servers": [{"url": "."}],  # from where this was read: a proxy may put the endpoint below a path
        "tags": [{"name": name} for name in (_GENERATION, _MODELS, _BATCHES, _DEPLOYMENT)],
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": {
            **{path: {"post": _generation(path)} for path in _in_order(ENDPOINTS)},
            **_pages(),
            **_kept_responses(),
            **_batch_api(),
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "schemas": {**request_schemas(), **answer_schemas()},
            "responses": {str(status): _error(status) for status in _ERRORS},
        },
    }


def _in_order(endpoints: Collection[str]) -> list[str]:
    """Those that have a summary first, in its order; then the others by name."""
    known = {f"/v1/{name}": place for place, name in enumerate(_SUMMARIES)}
    return sorted(endpoints, key=lambda path: (known.get(path, len(known)), path))


def _generation(path: str) -> _Json:
    name = path.removeprefix("/v1/")
    if name in _FORMS:
        content: _Json = {"multipart/form-data": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": {"schema": ref("schemas", SCHEMAS.get(name, "Request"))}}
    answer = {"description": "the engine's answer", "content": {"*/*": {}}}
    if name in _ANSWERS:
        streamed: _Json = {"text/event-stream": {}} if name in _STREAMED else {}
        answer["content"] = {"application/json": {"schema": ref("schemas", _ANSWERS[name])}, **streamed}
    return {
        "tags": [_GENERATION],
        "summary": _SUMMARIES.get(name, f"{name}, where the engine has it"),
        "parameters": [
            _header(PRIORITY_HEADER, {"enum": [priority.name.lower() for priority in Priority]}, "whose turn it is"),
            _header(REQUEST_ID_HEADER, TEXT, "comes back with the answer; a new one where it is missing"),
            _header("X-Session-Id", TEXT, "requests of one session go to one worker, if it can be"),
        ],
        "requestBody": {"required": True, "content": content},
        "responses": _answers(answer, _OF_GENERATION),
    }


def _pages() -> _Json:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    anybody: _Json = {"security": [{}, {"bearer": []}, {"x-api-key": []}]}
    return {
        "/v1/models": {"get": _page("what is served", "Models", tag=_MODELS)},
        "/v1/models/{model}": {"get": _page("one model", "Model", 404, tag=_MODELS) | {"parameters": [name]}},
        TOKENIZER_INFO: {"get": _page("the tokenizer, where the engine tells of it", "Tokenizer", 404, 429, 502)},
        "/health": {"get": _page("whether requests are answered", "Health") | anybody},
        "/workers": {"get": _page("the workers, one by one", "Workers", 403)},
        "/load": {"get": _page("what requests ask of each pool", "Load", 403)},
        "/metrics": {"get": _page("Prometheus metrics", "", 403)},
        "/status.json": {"get": _page("the deployment at a glance", "Status")},
        "/tenants": {"get": _page("limits and usage by key", "Tenants")},
        "/openapi.json": {"get": _page("this description", "Description") | anybody},
        "/docs": {"get": _web_page("this description, to read") | anybody},
        "/": {"get": _web_page("the status page, which asks for a key") | anybody},
    }


def _kept_responses() -> _Json:
    """Responses that are kept for a while."""
    broken, tag = (400, 404, 500), _GENERATION
    parameters = [_parameter("path", "response_id", TEXT)]
    listed = [_parameter("query", "after", TEXT), _limit(MOST_LISTED), _parameter("query", "order", _ORDERS)]
    path = "/v1/responses/{response_id}"
    cancel = _page("an error: nothing runs in the background", "Response", *broken, tag=tag)
    return {
        path: {
            "parameters": parameters,
            "get": _page("a response that is kept", "Response", *broken, tag=tag),
            "delete": _page("keep it no longer", "RemovedResponse", *broken, tag=tag),
        },
        f"{path}/input_items": {
            "parameters": parameters,
            "get": _page("what it was asked with", "InputItems", *broken, tag=tag) | {"parameters": listed},
        },
        f"{path}/cancel": {"parameters": parameters, "post": cancel},
    }


def _batch_api() -> _Json:
    """OpenAI's files and batches."""
    broken = (400, 404, 500, 507)
    file, batch = _parameter("path", "file_id", TEXT), _parameter("path", "batch_id", TEXT)
    after = _parameter("query", "after", TEXT)
    purpose, order = _parameter("query", "purpose", TEXT), _parameter("query", "order", _ORDERS)
    form = {"multipart/form-data": {"schema": ref("schemas", "Upload")}}
    asked = {"application/json": {"schema": ref("schemas", "NewBatch")}}
    content = _page("the bytes of a file", "", *broken)
    content["responses"]["200"]["content"] = {"application/octet-stream": {}}
    paths: _Json = {
        "/v1/files": {
            "get": _page("the files of this key, page by page", "Files", *broken)
            | {"parameters": [after, _limit(limits.MOST_FILES_LISTED), order, purpose]},
            "post": _page("upload a file", "File", *broken) | {"requestBody": {"required": True, "content": form}},
        },
        "/v1/files/{file_id}": {
            "parameters": [file],
            "get": _page("one file", "File", *broken),
            "delete": _page("remove a file", "Removed", *broken),
        },
        "/v1/files/{file_id}/content": {"parameters": [file], "get": content},
        "/v1/batches": {
            "get": _page("the batches of this key, the newest first", "Batches", *broken)
            | {"parameters": [after, _limit(limits.MOST_BATCHES_LISTED)]},
            "post": _page("begin a batch", "Batch", *broken) | {"requestBody": {"required": True, "content": asked}},
        },
        "/v1/batches/{batch_id}": {"parameters": [batch], "get": _page("one batch", "Batch", *broken)},
        "/v1/batches/{batch_id}/cancel": {"parameters": [batch], "post": _page("cancel it", "Batch", *broken)},
    }
    for operations in paths.values():
        for method in operations.keys() - {"parameters"}:
            operations[method]["tags"] = [_BATCHES]
    return paths


def _web_page(summary: str) -> _Json:
    page = _page(summary, "")
    page["responses"]["200"]["content"] = {"text/html": {}}
    return page


def _page(summary: str, schema: str, *errors: int, tag: str = _DEPLOYMENT) -> _Json:
    content = {"application/json": {"schema": ref("schemas", schema)}} if schema else {"text/plain": {}}
    answer = {"description": summary, "content": content}
    return {"tags": [tag], "summary": summary, "responses": _answers(answer, (*_OF_ANY, *errors))}


def _answers(good: _Json, errors: tuple[int, ...]) -> _Json:
    return {"200": good, **{str(status): ref("responses", str(status)) for status in sorted(errors)}}


def _error(status: int) -> _Json:
    answer: _Json = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": ref("schemas", "Error")}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
    return answer


def _parameter(where: str, name: str, schema: _Json) -> _Json:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _limit(most: int) -> _Json:
    return _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": most})


def _header(name: str, schema: _Json, description: str) -> _Json:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
