"""References within a JSON schema."""

from collections.abc import Mapping
from typing import Any

from ...grammar.references import MOST_HOPS, is_within, pointed_to


def resolved(schema: Any, root: Any) -> Any:
    """What a schema that is a reference within `root` points to; None if that is nothing."""
    for _ in range(MOST_HOPS):
        pointer = schema.get("$ref") if isinstance(schema, Mapping) else None
        if pointer is None:
            return schema
        if not is_within(pointer):
            return None
        schema = pointed_to(pointer, root)
    return None
