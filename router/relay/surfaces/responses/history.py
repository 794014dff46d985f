"""The conversation that a request goes on with, from kept responses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from .....core.errors import RunDirectoryError
from ....batches.ids import RESPONSE
from ....responses.record import Record
from ..translation import TranslationError
from .asked import Asked
from .items import MOST_ITEMS, REFERENCE, Item, read_items, references

_MOST_RECORDS = 64  # that are read for the references of one request
_MOST_BYTES = 64 * 2**20  # of them together
_SUFFIX_LENGTH = 32  # of an item's id: what it has of its response's
Get = Callable[[str], Record | None]


class _Output(msgspec.Struct):
    output: list[Item]


_output = msgspec.json.Decoder(_Output)


@dataclass(frozen=True)
class History:
    """What was `before` a request, and its own `items`, of which none is a reference any more."""

    before: list[Item]
    items: list[Item]

    @classmethod
    def read(cls, get: Get, asked: Asked) -> "History":
        """Read what a request refers to.

        Args:
            get: the kept response with an id.
            asked: what the client asks for.

        Raises TranslationError for what is not kept, and RunDirectoryError.
        """
        before: list[Item] = []
        records = _Records(get)
        if asked.previous_response_id:
            before = records.conversation(asked.previous_response_id)
        for id in sorted(references(asked.items), key=_suffix, reverse=True):  # the newest has those before, mostly
            records.find(id)
        items = [records.known[item.id or ""] if item.type == REFERENCE else item for item in asked.items]
        if len(before) + len(items) > MOST_ITEMS:
            message = f"the conversation has {len(before) + len(items)} items: expected at most {MOST_ITEMS}"
            raise TranslationError(message, "previous_response_id")
        return cls(before, items)


class _Records:
    """Kept responses, and the items that were seen in them."""

    def __init__(self, get: Get) -> None:
        self._get = get
        self.known: dict[str, Item] = {}
        self._read = 0
        self._bytes = 0

    def conversation(self, id: str) -> list[Item]:
        """All items of a response and of what was before. Raises TranslationError."""
        found = self._items(id)
        if found is None:
            message = f"Previous response with id '{id[:100]}' not found: it was not kept, or is kept no longer."
            raise TranslationError(message, "previous_response_id", code="previous_response_not_found")
        return found

    def find(self, id: str) -> None:
        """Make an item known. Raises TranslationError."""
        if id not in self.known:
            if self._read >= _MOST_RECORDS or self._bytes > _MOST_BYTES:
                raise TranslationError(f"input refers to items of more than {_MOST_RECORDS} responses", "input")
            self._items(RESPONSE + _suffix(id))
        if id not in self.known:
            message = f"Item with id '{id[:100]}' not found: its response was not kept, or is kept no longer."
            raise TranslationError(message, "input")

    def _items(self, id: str) -> list[Item] | None:
        record = self._get(id)
        self._read += 1
        if record is None:
            return None
        self._bytes += len(record.before) + len(record.input) + len(record.response)
        try:
            found = [*read_items(record.before), *read_items(record.input), *_output.decode(record.response).output]
        except (ValueError, RecursionError) as error:
            raise RunDirectoryError(f"the kept response {id} is damaged: {error}") from error
        self._know(found)
        return found

    def _know(self, items: Iterable[Item]) -> None:
        self.known.update({item.id: item for item in items if item.id})


def _suffix(id: str) -> str:
    return id.partition("_")[2][:_SUFFIX_LENGTH]
