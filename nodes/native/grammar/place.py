"""Which part of a JSON schema the library cannot take: it says why, and not where."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from .keywords import ONE_SCHEMA, SCHEMA_LISTS, SCHEMA_MAPS

Schema = dict[str, Any]
Reason = Callable[[Schema], str | None]

_MOST_TRIES = 64
_MOST_S = 1.0


def place_of(schema: Schema, reason: Reason, clock: Callable[[], float] = time.thread_time) -> str:
    """The JSON pointer of the smallest part that fails for the same reason as the whole; empty for the root.

    Where that would take long, that of a larger part.

    Args:
        schema: what cannot be compiled.
        reason: compiles a schema and returns why that fails, or None.
        clock: seconds.
    """
    begun, tries, place, part, said = clock(), _MOST_TRIES, "", schema, reason(schema)
    while tries > 0 and clock() - begun < _MOST_S:
        children = [child for child in islice(_parts(part), tries) if isinstance(child[1], dict)]
        tries -= max(len(children), 1)
        found = next((child for child in children if reason(_rooted(child[1], schema)) == said), None)
        if found is None:
            break
        place, part = place + found[0], found[1]
    return place


def _rooted(part: Schema, root: Schema) -> Schema:
    """A part as a schema of its own, in which references into the root's definitions hold."""
    return {**{name: root[name] for name in ("x-guidance", "$defs", "definitions") if name in root}, **part}


def _parts(schema: Schema) -> Iterator[tuple[str, Any]]:
    """The schemas right below one, by their places in it."""
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA:
            yield f"/{keyword}", value
        elif keyword in SCHEMA_LISTS and isinstance(value, list):
            yield from ((f"/{keyword}/{index}", item) for index, item in enumerate(value))
        elif keyword in SCHEMA_MAPS and isinstance(value, dict):
            yield from ((f"/{keyword}/{name}", item) for name, item in value.items())
