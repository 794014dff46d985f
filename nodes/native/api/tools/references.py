"""References within a JSON schema."""

from collections.abc import Mapping
from typing import Any

_MOST_HOPS = 16


def resolved(schema: Any, root: Any) -> Any:
    """What a schema that is a reference within `root` points to; None if that is nothing."""
    for _ in range(_MOST_HOPS):
        pointer = schema.get("$ref") if isinstance(schema, Mapping) else None
        if pointer is None:
            return schema
        if not isinstance(pointer, str) or not pointer.startswith("#/"):
            return None
        schema = root
        for part in pointer[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            schema = schema.get(name) if isinstance(schema, Mapping) else None
    return None
