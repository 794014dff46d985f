"""References within a JSON schema."""

from collections.abc import Mapping
from typing import Any, TypeGuard

MOST_HOPS = 16  # of references that point to references


def is_within(pointer: Any) -> TypeGuard[str]:
    """Whether the value of `$ref` points into the schema that it stands in."""
    return isinstance(pointer, str) and pointer.startswith("#/")


def pointed_to(pointer: str, root: Any) -> Any:
    """What such a pointer points to within `root`; None if that is nothing."""
    found = root
    for part in pointer[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
