"""Ids of responses: when one was made, whose it is, of which conversation it is a part, and after which turn it came.

So no file has to be read to find out which turns are too old, and which ones others still need.
"""

import re
import secrets
from typing import NamedTuple

from ..batches.ids import mark_of_tenant

RESPONSE = "resp_"
SUFFIX_LENGTH = 48  # of what follows; ids of items begin with it
CONVERSATION = slice(len(RESPONSE) + 20, len(RESPONSE) + 28)  # where it stands in an id
_FIRST = "0" * 8  # in the place of the turn before
_ID = re.compile(
    r"resp_(?P<made>[0-9a-f]{12})(?P<mark>[0-9a-f]{8})(?P<conversation>[0-9a-f]{8})(?P<after>[0-9a-f]{8})"
    r"(?P<own>[0-9a-f]{12})",
    re.ASCII,
)


class ResponseId(NamedTuple):
    """What an id says. They sort by the time of creation."""

    text: str
    made_at: float  # Unix seconds
    mark: str  # of its tenant; several tenants may have the same
    conversation: str  # of one tenant's; the same for all turns, also where it forks
    after: str  # `turn` of the one before; empty: it is the first
    turn: str  # which one it is of its conversation: nearly unique


def parsed(text: str) -> ResponseId | None:
    """What an id says; None for what is no id: nothing else may become part of a path."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    after = "" if found["after"] == _FIRST else found["after"]
    return ResponseId(
        text, int(found["made"], 16) / 1000, found["mark"], found["conversation"], after, found["own"][:8]
    )


def required(text: str) -> ResponseId:
    """What an id says. Raises ValueError for what is no id."""
    id = parsed(text)
    if id is None:
        raise ValueError(f"{text[:100]!r} is no id of a response")
    return id


def is_tenants(id: ResponseId, tenant: str) -> bool:
    """Whether an id is, as far as it shows it, one of that tenant."""
    return id.mark == mark_of_tenant(tenant)


def new_id(tenant: str, now: float, previous: ResponseId | None = None) -> str:
    """A new id. `now`: Unix seconds. `previous`: the turn that it comes after."""
    conversation, after = (secrets.token_hex(4), _FIRST) if previous is None else previous[3:6:2]
    return f"{RESPONSE}{int(now * 1000):012x}{mark_of_tenant(tenant)}{conversation}{after}{secrets.token_hex(6)}"
