"""A kept response: `responses/MARK/ID.json` in the run directory, written by the router and never changed."""

import msgspec
from msgspec import Raw

VERSION = 2
NO_ITEMS = Raw(b"[]")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A response with the turn of its conversation that it is, as JSON.

    The turns before are those of `previous`. Where that one may soon be removed they are in `before`, and `previous`
    is empty.
    """

    id: str
    tenant: str
    response: Raw  # the object that clients see
    input: Raw  # the items of its request
    previous: str = ""  # the id of the response that it goes on with
    before: Raw = NO_ITEMS
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of its JSON, nearly."""
        return len(self.response) + len(self.input) + len(self.before)
