"""A kept response: `responses/MARK/ID.json` in the run directory, written once by the router."""

import msgspec
from msgspec import Raw

VERSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A response and its conversation, all as JSON."""

    id: str
    tenant: str
    response: Raw  # the object that clients see
    input: Raw  # the items of its request
    before: Raw  # the items of the conversation that it goes on with
    version: int = VERSION
