"""GET /openapi.json: an OpenAPI 3.1 description of the endpoint. It has no data of the deployment, so it needs no key.

Engines know many more fields of requests than stand here, and the router passes on all of them.
"""

import functools
from typing import Any

import msgspec
from aiohttp import web

from ...core.net.openai import PRIORITY_HEADER, REQUEST_ID_HEADER
from ..batches import limits
from ..batches.records import Status
from ..control.counters import ENDPOINTS
from ..fleet.models import ASLEEP, LIVE, OFFLINE, QUEUED, STARTING
from ..tenants.tenant import Priority, Usage

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
_FORMS = {"audio/transcriptions", "audio/translations"}
_PROMPTS = {"chat/completions": "messages", "completions": "prompt"}


def openapi(request: web.Request) -> web.Response:
    """The description."""
    return web.json_response(description())


@functools.cache
def description() -> _Json:
    """The description as a value that JSON can have."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "slurminfer", "version": "1", "description": "OpenAI's API before workers on Slurm."},
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": {**{path: {"post": _generation(path)} for path in sorted(ENDPOINTS)}, **_pages(), **_batch_api()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "schemas": _schemas(),
            "responses": {str(status): _error(status) for status in _ERRORS},
        },
    }


def _generation(path: str) -> _Json:
    name = path.removeprefix("/v1/")
    if name in _FORMS:
        content: _Json = {"multipart/form-data": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": {"schema": _ref("schemas", "Request")}}
    if prompt := _PROMPTS.get(name):
        fields = {"allOf": [_ref("schemas", "Request")], "required": [prompt]}
        content = {"application/json": {"schema": {**fields, "properties": {prompt: _PROMPT_TYPES[prompt]}}}}
    answer = {"description": "the engine's answer", "content": {"*/*": {}}}
    if prompt:
        answer["content"] = {
            "application/json": {"schema": _ref("schemas", "Answer")},
            "text/event-stream": {},
        }
    return {
        "summary": f"{name}, answered by a worker",
        "parameters": [
            _header(PRIORITY_HEADER, {"enum": [priority.name.lower() for priority in Priority]}),
            _header(REQUEST_ID_HEADER, {"type": "string"}),
            _header("X-Session-Id", {"type": "string"}),
        ],
        "requestBody": {"required": True, "content": content},
        "responses": _answers(answer, _OF_GENERATION),
    }


def _pages() -> _Json:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    anybody: _Json = {"security": [{}, {"bearer": []}, {"x-api-key": []}]}
    return {
        "/v1/models": {"get": _page("what is served", "Models")},
        "/v1/models/{model}": {"get": _page("one model", "Model", 404) | {"parameters": [name]}},
        "/health": {"get": _page("whether requests are answered", "Health") | anybody},
        "/workers": {"get": _page("the workers, one by one", "Workers", 403)},
        "/load": {"get": _page("what requests ask of each pool", "Load", 403)},
        "/metrics": {"get": _page("Prometheus metrics", "", 403)},
        "/status.json": {"get": _page("the deployment at a glance", "Status")},
        "/tenants": {"get": _page("limits and usage by key", "Tenants")},
        "/openapi.json": {"get": _page("this description", "Description") | anybody},
    }


def _batch_api() -> _Json:
    """OpenAI's files and batches."""
    broken = (400, 404, 500, 507)
    file, batch = _parameter("path", "file_id", _TEXT), _parameter("path", "batch_id", _TEXT)
    after, orders = _parameter("query", "after", _TEXT), {"enum": ["asc", "desc"]}
    purpose, order = _parameter("query", "purpose", _TEXT), _parameter("query", "order", orders)
    form = {"multipart/form-data": {"schema": _ref("schemas", "Upload")}}
    asked = {"application/json": {"schema": _ref("schemas", "NewBatch")}}
    content = _page("the bytes of a file", "", *broken)
    content["responses"]["200"]["content"] = {"application/octet-stream": {}}
    return {
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


def _page(summary: str, schema: str, *errors: int) -> _Json:
    content = {"application/json": {"schema": _ref("schemas", schema)}} if schema else {"text/plain": {}}
    answer = {"description": summary, "content": content}
    return {"summary": summary, "responses": _answers(answer, (*_OF_ANY, *errors))}


def _answers(good: _Json, errors: tuple[int, ...]) -> _Json:
    return {"200": good, **{str(status): _ref("responses", str(status)) for status in sorted(errors)}}


def _error(status: int) -> _Json:
    answer: _Json = {
        "description": _ERRORS[status],
        "content": {"application/json": {"schema": _ref("schemas", "Error")}},
    }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
    return answer


def _parameter(where: str, name: str, schema: _Json) -> _Json:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _limit(most: int) -> _Json:
    return _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": most})


def _header(name: str, schema: _Json) -> _Json:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _ref(kind: str, name: str) -> _Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(required: _Json, **others: Any) -> _Json:
    return {"type": "object", "properties": {**required, **others}, "required": list(required)}


def _list(item: _Json) -> _Json:
    return {"type": "array", "items": item}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_PROMPT_TYPES = {"messages": _list({"type": "object"}), "prompt": {"type": ["string", "array"]}}


def _schemas() -> _Json:
    worker = _object(
        {name: _TEXT for name in ("id", "pool", "model", "engine", "host", "state")} | {"in_flight": _COUNT},
        healthy={"type": "boolean"},
    )
    pool = _object({"name": _TEXT, "model": _TEXT, "ready": _COUNT, "present": _COUNT, "reason": _TEXT})
    usage = msgspec.json.schema(Usage)["$defs"]["Usage"]["properties"]
    tenant = _object({"name": _TEXT, "tokens_today": _COUNT, **usage})
    seconds = {"type": "number", "minimum": 0}
    load = _object({"in_flight": _COUNT, "waiting": _COUNT, "waited_s": seconds, "idle_s": seconds})
    model_state = {"enum": [LIVE, STARTING, QUEUED, ASLEEP, OFFLINE]}
    error = _object({"message": _TEXT, "type": _TEXT}, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)
    return {
        "Error": _object({"error": error}),
        "Request": _object({}, model=_TEXT, stream={"type": "boolean"}, max_tokens={"type": "integer", "minimum": 1}),
        "Answer": _object({"choices": _list({"type": "object"})}, usage={"type": ["object", "null"]}),
        "Model": _object(
            {"id": _TEXT, "object": {"const": "model"}, "created": {"type": "integer"}, "state": model_state}
        ),
        "Models": _object({"object": {"const": "list"}, "data": _list(_ref("schemas", "Model"))}),
        "Health": _object(
            {"status": {"enum": ["ok", "asleep"]}}, workers={"type": "object", "additionalProperties": _COUNT}
        ),
        "Workers": _object({"workers": _list(worker)}),
        "Load": _object({"pools": {"type": "object", "additionalProperties": load}}),
        "Status": _object(
            {
                "deployment": _TEXT,
                "endpoint": _TEXT,
                "models": _list(_object({"name": _TEXT, "state": model_state})),
                "workers": _list(worker),
                "pools": _list(pool),
                "queue": {"type": "object", "additionalProperties": _COUNT},
            }
        ),
        "Tenants": _object({"tenants": _list(tenant)}),
        "Description": {"type": "object"},
        **_batch_schemas(),
    }


def _batch_schemas() -> _Json:
    count_or_null = {"type": ["integer", "null"]}
    file = {"id": _TEXT, "object": {"const": "file"}, "bytes": _COUNT, "created_at": _COUNT, "filename": _TEXT}
    batch = {"id": _TEXT, "object": {"const": "batch"}, "endpoint": _TEXT, "input_file_id": _TEXT, "created_at": _COUNT}
    kept = _object(
        {
            "anchor": {"const": "created_at"},
            "seconds": {"type": "integer", "minimum": limits.LEAST_KEPT_S, "maximum": limits.MOST_KEPT_S},
        }
    )
    return {
        "File": _object({**file, "purpose": _TEXT, "status": _TEXT}, expires_at=_COUNT),
        "Files": _listed("File"),
        "Removed": _object({"id": _TEXT, "object": {"const": "file"}, "deleted": {"const": True}}),
        "Upload": _object({"file": {"type": "string", "format": "binary"}, "purpose": {"const": "batch"}}),
        "Batch": _object(
            {**batch, "status": {"enum": [status.value for status in Status]}, "request_counts": {"type": "object"}},
            **{f"{status}_at": count_or_null for status in Status if status is not Status.VALIDATING},
            output_file_id=_TEXT_OR_NULL,
            error_file_id=_TEXT_OR_NULL,
            errors={"type": ["object", "null"]},
            metadata={"type": ["object", "null"]},
        ),
        "Batches": _listed("Batch"),
        "NewBatch": _object(
            {
                "input_file_id": _TEXT,
                "endpoint": {"enum": list(limits.ENDPOINTS)},
                "completion_window": {"const": limits.WINDOW},
            },
            metadata={"type": ["object", "null"], "additionalProperties": _TEXT},
            output_expires_after=kept,
        ),
    }


def _listed(schema: str) -> _Json:
    return _object(
        {"object": {"const": "list"}, "data": _list(_ref("schemas", schema)), "has_more": {"type": "boolean"}}
    )
