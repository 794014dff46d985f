"""The requests that workers were lost under: the same table in the supervisor and in all relays."""

from collections import OrderedDict

from .messages import Blamed

MOST_REQUESTS = 1024


def remember(table: OrderedDict[bytes, Blamed], one: Blamed) -> None:
    """Put a request into the table; out, if nothing is held against it any more. The oldest one goes if it is full."""
    table.pop(one.request, None)
    if one.points:
        table[one.request] = one
    if len(table) > MOST_REQUESTS:
        table.popitem(last=False)
