"""The conversation that a request goes on with, from kept responses."""

import logging
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from .....core.errors import DamagedFileError
from ....responses.ids import RESPONSE, SUFFIX_LENGTH
from ....responses.limits import MOST_RECORD_BYTES
from ....responses.record import Record
from ..translation import TranslationError
from .asked import Asked
from .items import MOST_ITEMS, REFERENCE, Item, read_items, references

_MOST_BYTES = 4 * MOST_RECORD_BYTES  # that are read for one request

_log = logging.getLogger(__name__)


class _Output(msgspec.Struct):
    output: list[Item]


class _Turn(NamedTuple):
    """Items of a conversation, and the id of the response before them; empty: there is none."""

    items: list[Item]
    previous: str


_output = msgspec.json.Decoder(_Output)


class Kept(Protocol):
    """A tenant's kept responses. Both raise RunDirectoryError."""

    def get(self, id: str) -> Record | None:
        """A response that clients may refer to."""

    def before(self, id: str) -> Record | None:
        """One that another goes on with, and that clients may see no longer."""


@dataclass(frozen=True)
class History:
    """What was `before` a request, and its own `items`, of which none is a reference any more.

    `size`: bytes of what was before.
    """

    before: list[Item]
    items: list[Item]
    size: int = 0

    @classmethod
    def read(cls, kept: Kept, asked: Asked) -> "History":
        """Read what a request refers to. Raises TranslationError for what is not kept, and RunDirectoryError."""
        before: list[Item] = []
        turns = _Turns(kept)
        if asked.previous_response_id:
            before = turns.conversation(asked.previous_response_id)
        size = turns.size
        for id in references(asked.items):
            turns.find(id)
        items = [turns.known[item.id or ""] if item.type == REFERENCE else item for item in asked.items]
        if len(before) + len(items) > MOST_ITEMS:
            raise _too_many_items(len(before) + len(items))
        return cls(before, items, size)


class _Turns:
    """Turns of conversations, and the items that were seen in them. A file is read once for a request."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.known: dict[str, Item] = {}
        self._read: set[str] = set()
        self.size = 0  # bytes

    def conversation(self, id: str) -> list[Item]:
        """All items of a response and of what was before. Raises TranslationError."""
        turns, count, next_id = list[list[Item]](), 0, id
        turn = self._take(id, is_last=True)
        while turn is not None:
            turns.append(turn.items)
            count += len(turn.items)
            if count > MOST_ITEMS:
                raise _too_many_items(count)
            if not turn.previous:
                return [item for items in reversed(turns) for item in items]
            next_id = turn.previous
            turn = self._take(next_id)
        which = "" if next_id == id else f" (of it, the turn '{next_id[:100]}' is missing)"
        message = f"Previous response with id '{id[:100]}' not found: it was not kept, or is kept no longer{which}."
        raise TranslationError(message, "previous_response_id", code="previous_response_not_found")

    def find(self, id: str) -> None:
        """Make an item known. Raises TranslationError."""
        if id not in self.known:
            self._take(RESPONSE + id.partition("_")[2][:SUFFIX_LENGTH], is_last=True)
        if id not in self.known:
            message = f"Item with id '{id[:100]}' not found: its response was not kept, or is kept no longer."
            raise TranslationError(message, "input")

    def _take(self, id: str, *, is_last: bool = False) -> _Turn | None:
        """Read a response. One whose file is damaged, or that was read before, is as good as none."""
        if id in self._read:
            return None
        self._read.add(id)
        try:
            record = self._kept.get(id) if is_last else self._kept.before(id)
            if record is None:
                return None
            self.size += record.size
            if self.size > _MOST_BYTES:
                message = f"the kept responses that are referred to have more than {_MOST_BYTES} bytes"
                raise TranslationError(message, "previous_response_id")
            turn = _turn(record)
        except DamagedFileError as error:
            _log.warning("a kept response cannot be used: %s", error)
            return None
        self.known.update({item.id: item for item in turn.items if item.id})
        return turn


def _turn(record: Record) -> _Turn:
    """What a record adds to a conversation. Raises DamagedFileError."""
    try:
        found = [*read_items(record.before), *read_items(record.input), *_output.decode(record.response).output]
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"response {record.id}: {error}") from error
    return _Turn(found, record.previous)


def _too_many_items(count: int) -> TranslationError:
    message = f"the conversation has {count} items: expected at most {MOST_ITEMS}"
    return TranslationError(message, "previous_response_id")
