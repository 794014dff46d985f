"""What answers have, and requests for batches, as OpenAPI describes it."""

from typing import Any

import msgspec

from ...batches import limits
from ...batches.records import Status
from ...fleet.models import ASLEEP, LIVE, OFFLINE, QUEUED, STARTING
from ...tenants.tenant import Usage

_Json = dict[str, Any]


def ref(kind: str, name: str) -> _Json:
    """A reference to a component of the description."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _object(required: _Json, **others: Any) -> _Json:
    return {"type": "object", "properties": {**required, **others}, "required": list(required)}


def _list(item: _Json) -> _Json:
    return {"type": "array", "items": item}


TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}


def answer_schemas() -> _Json:
    """The schemas by name."""
    worker = _object(
        {name: TEXT for name in ("id", "pool", "model", "engine", "host", "state")} | {"in_flight": _COUNT},
        healthy={"type": "boolean"},
    )
    pool = _object({"name": TEXT, "model": TEXT, "ready": _COUNT, "present": _COUNT, "reason": TEXT})
    usage = msgspec.json.schema(Usage)["$defs"]["Usage"]["properties"]
    tenant = _object({"name": TEXT, "tokens_today": _COUNT, **usage})
    seconds = {"type": "number", "minimum": 0}
    load = _object({"in_flight": _COUNT, "waiting": _COUNT, "waited_s": seconds, "idle_s": seconds})
    model_state = {"enum": [LIVE, STARTING, QUEUED, ASLEEP, OFFLINE]}
    error = _object({"message": TEXT, "type": TEXT}, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)
    return {
        "Error": _object({"error": error}),
        "Answer": _object({"choices": _list({"type": "object"})}, usage={"type": ["object", "null"]}),
        "Model": _object(
            {"id": TEXT, "object": {"const": "model"}, "created": {"type": "integer"}, "state": model_state},
            aliases=_list(TEXT),
        ),
        "Models": _object({"object": {"const": "list"}, "data": _list(ref("schemas", "Model"))}),
        "Health": _object(
            {"status": {"enum": ["ok", "asleep"]}}, workers={"type": "object", "additionalProperties": _COUNT}
        ),
        "Workers": _object({"workers": _list(worker)}),
        "Load": _object({"pools": {"type": "object", "additionalProperties": load}}),
        "Status": _object(
            {
                "deployment": TEXT,
                "endpoint": TEXT,
                "models": _list(_object({"name": TEXT, "state": model_state})),
                "workers": _list(worker),
                "pools": _list(pool),
                "queue": {"type": "object", "additionalProperties": _COUNT},
            }
        ),
        "Response": _object(
            {"id": TEXT, "object": {"const": "response"}, "status": TEXT, "output": _list({"type": "object"})},
            usage={"type": ["object", "null"]},
        ),
        "Message": _object(
            {
                "id": TEXT,
                "type": {"const": "message"},
                "role": {"const": "assistant"},
                "content": _list(_object({"type": {"enum": ["thinking", "text", "tool_use"]}})),
                "stop_reason": TEXT,
                "usage": _object({"input_tokens": _COUNT, "output_tokens": _COUNT}),
            },
            stop_sequence=_TEXT_OR_NULL,
        ),
        "TokenCount": _object({"input_tokens": _COUNT}),
        "RemovedResponse": _object({"id": TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
        "InputItems": _listed("InputItem"),
        "InputItem": _object({"id": TEXT, "type": TEXT}),
        "Tenants": _object({"tenants": _list(tenant)}),
        "Description": {"type": "object"},
        "Tokenizer": {"type": "object"},
        **_batch_schemas(),
    }


def _batch_schemas() -> _Json:
    count_or_null = {"type": ["integer", "null"]}
    file = {"id": TEXT, "object": {"const": "file"}, "bytes": _COUNT, "created_at": _COUNT, "filename": TEXT}
    batch = {"id": TEXT, "object": {"const": "batch"}, "endpoint": TEXT, "input_file_id": TEXT, "created_at": _COUNT}
    kept = _object(
        {
            "anchor": {"const": "created_at"},
            "seconds": {"type": "integer", "minimum": limits.LEAST_KEPT_S, "maximum": limits.MOST_KEPT_S},
        }
    )
    return {
        "File": _object({**file, "purpose": TEXT, "status": TEXT}, expires_at=_COUNT),
        "Files": _listed("File"),
        "Removed": _object({"id": TEXT, "object": {"const": "file"}, "deleted": {"const": True}}),
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
                "input_file_id": TEXT,
                "endpoint": {"enum": list(limits.ENDPOINTS)},
                "completion_window": {"const": limits.WINDOW},
            },
            metadata={"type": ["object", "null"], "additionalProperties": TEXT},
            output_expires_after=kept,
        ),
    }


def _listed(schema: str) -> _Json:
    return _object(
        {"object": {"const": "list"}, "data": _list(ref("schemas", schema)), "has_more": {"type": "boolean"}}
    )
