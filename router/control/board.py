"""What the relays of a router know of each other, in shared memory: a row for each relay, which only it writes.

A row has 64-bit cells, each written whole, so there are no locks and no torn numbers:

    requests  [WORKERS]     in flight at the worker of this slot
    tokens    [WORKERS]     of their prompts, as long as no byte of an answer has come
    suspects  [WORKERS]     of them, those that are tried alone: relay/losses/blame.py
    minutes   [TENANTS, 2]  minute << 32 | requests in it, of an even and of an odd minute (Unix time / 60)
    spent     [TENANTS]     tokens
    reserved  [TENANTS]     tokens that requests in flight may still spend, of tenants with a limit of tokens
    published [1]           prefix owners so far
    hashes    [RING]        block hashes, int64, in a ring
    owners    [RING]        ordinal << 16 | slot: by the ordinal a reader sees that the writer has overtaken it
    waiting   [QUEUES, 4]   requests that wait in this relay: of each class, and whether there are any

One row more than there are relays keeps what the tenants of relays that have died had spent. Memory that was never
written takes no room.
"""

import mmap
import os
from array import array
from collections.abc import Sequence
from operator import add, eq, sub

from ...core.errors import RouterError

WORKERS = 32_768  # slots of workers
TENANTS = 4_096  # slots of tenants
RING = 65_536  # prefix owners that a reader may be behind
QUEUES = 64  # columns for queues; some share one where there are more
CLASSES = 3  # of requests: tenants/tenant.py

_SLOT_BITS = 16
_SLOT_MASK = (1 << _SLOT_BITS) - 1
_LATE = 60  # minutes that a note may be late, such as that of a relay that stood still
_MINUTE_BITS = 32
_MINUTE_MASK = (1 << _MINUTE_BITS) - 1
_CELL = 8
_SIZES = (WORKERS, WORKERS, WORKERS, 2 * TENANTS, TENANTS, TENANTS, 1, RING, RING, (CLASSES + 1) * QUEUES)
_PAGE = 4096  # rows begin at pages, so that relays do not write to the same cache lines
_ROW_BYTES = -(-sum(_SIZES) * _CELL // _PAGE) * _PAGE


class Row:
    """The row of one relay, for that relay to write. Cells are 0 at first."""

    def __init__(self, memory: memoryview) -> None:
        parts, at = [], 0
        for index, size in enumerate(_SIZES):
            kind = "Q" if index >= 8 else "q"
            parts.append(memory[at : at + size * _CELL].cast(kind))  # type: ignore[call-overload]
            at += size * _CELL
        self.requests, self.tokens, self.suspects, self.minutes, self.spent, self.reserved, *rest = parts
        self.published, self.hashes, self.owners, self.waiting = rest

    def add(self, slot: int, requests: int = 0, tokens: int = 0) -> None:
        """Add to what is in flight at a worker; negative numbers take away."""
        if requests:
            self.requests[slot] += requests
        if tokens:
            self.tokens[slot] += tokens

    def suspect(self, slot: int, by: int) -> None:
        """Add to the requests that are tried alone at a worker; a negative number takes away."""
        self.suspects[slot] += by

    def spend(self, tenant_slot: int, minute: int, requests: int = 0, tokens: int = 0) -> None:
        """Note requests of a tenant in `minute` (Unix time // 60), and tokens; negative numbers take away."""
        if requests:
            at = 2 * tenant_slot + (minute & 1)
            cell = self.minutes[at]
            noted = cell >> _MINUTE_BITS
            if noted <= minute or noted > minute + _LATE:  # it is too late to matter, or a clock was wrong then
                now = (cell & _MINUTE_MASK) + requests if noted == minute else requests
                self.minutes[at] = minute << _MINUTE_BITS | max(0, now)
        if tokens:
            self.spent[tenant_slot] += tokens

    def reserve(self, tenant_slot: int, tokens: int) -> None:
        """Note tokens that a tenant's request in flight may spend; a negative number when it has ended."""
        self.reserved[tenant_slot] += tokens

    def publish(self, news: Sequence[tuple[int, int]]) -> None:
        """Tell the other relays which workers hold which blocks of prompts, as (block hash, slot)."""
        while news:
            ordinal: int = self.published[0]
            at = ordinal % RING
            part, news = news[: RING - at], news[RING - at :]  # up to where the ring begins anew
            cells = slice(at, at + len(part))
            self.owners[cells] = array("Q", bytes(len(part) * _CELL))  # who reads them now sees that they are written
            self.hashes[cells] = array("q", [block_hash for block_hash, _ in part])
            slots = [slot for _, slot in part]
            self.owners[cells] = array("Q", list(map(add, _ordinals(ordinal, len(part)), slots)))
            self.published[0] = ordinal + len(part)

    def wait(self, column: int, waiting: Sequence[int]) -> None:
        """Tell how many requests wait in a queue, by class."""
        at = (CLASSES + 1) * column
        for offset, number in enumerate(waiting):
            self.waiting[at + offset] = number
        self.waiting[at + CLASSES] = 1 if any(waiting) else 0

    def since(self, seen: int) -> tuple[int, list[tuple[int, int]]]:
        """What was published after the first `seen`, as (hash, slot), and how many there are now.

        Entries that have been overwritten meanwhile are left out.
        """
        published: int = self.published[0]
        found: list[tuple[int, int]] = []
        first = max(seen, published - RING)
        while first < published:
            end = min(published, first + RING - first % RING)  # up to where the ring begins anew
            part = slice(first % RING, first % RING + end - first)
            before, hashes, after = (cells[part].tolist() for cells in (self.owners, self.hashes, self.owners))
            slots = map(sub, before, _ordinals(first, len(before)))
            news = zip(hashes, slots, map(eq, before, after), strict=True)
            found += [(block_hash, slot) for block_hash, slot, is_same in news if is_same and 0 <= slot <= _SLOT_MASK]
            first = end
        return published, found


def _ordinals(before: int, number: int) -> range:
    """The cells of `owners` of so many entries after the first `before`, all of the worker of slot 0."""
    return range((before + 1) << _SLOT_BITS, (before + number + 1) << _SLOT_BITS, 1 << _SLOT_BITS)


class Board:
    """All rows. `create` is for the supervisor, `attach` for a relay that has got the descriptor from it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.relays = os.fstat(fd).st_size // _ROW_BYTES - 1
        memory = memoryview(mmap.mmap(fd, 0))
        rows = [Row(memory[at : at + _ROW_BYTES]) for at in range(0, len(memory), _ROW_BYTES)]
        self._rows, self._dead = rows[:-1], rows[-1]
        self._requests = tuple(row.requests for row in self._rows)
        self._tokens = tuple(row.tokens for row in self._rows)
        self._by_tenant = tuple((row.minutes, row.spent, row.reserved) for row in rows)
        waiting = [row.waiting for row in self._rows]
        self._waiting_elsewhere = [waiting[:index] + waiting[index + 1 :] for index in range(self.relays)]
        self._seen: dict[int, list[int]] = {}  # by reader, how many entries of each row

    @classmethod
    def create(cls, relays: int) -> "Board":
        """A new board, all 0. Raises RouterError where there is no memory for it."""
        try:
            fd = os.memfd_create("slurminfer-board", os.MFD_CLOEXEC)
            os.ftruncate(fd, (relays + 1) * _ROW_BYTES)
            return cls(fd)
        except OSError as error:
            raise RouterError(f"cannot make shared memory for {relays} relays: {error.strerror}") from error

    @classmethod
    def attach(cls, fd: int) -> "Board":
        """The board of that descriptor, which this object owns from now on. Raises OSError."""
        return cls(fd)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last object that uses it."""
        os.close(self.fd)

    def row(self, index: int) -> Row:
        """The row of the relay `index`, for it alone to write."""
        return self._rows[index]

    def in_flight(self, slot: int) -> int:
        """Requests in flight at a worker, of all relays."""
        total = 0
        for cells in self._requests:
            total += cells[slot]
        return total

    def pending_tokens(self, slot: int) -> int:
        """Prompt tokens in flight at a worker of which no byte of an answer has come, of all relays."""
        total = 0
        for cells in self._tokens:
            total += cells[slot]
        return total

    def suspects(self, slot: int) -> int:
        """Requests that are tried alone at a worker, of all relays."""
        return sum(row.suspects[slot] for row in self._rows)

    def waiting(self, index: int, column: int) -> list[int] | None:
        """Requests that wait in a queue of the relays other than `index`, by class; None where there are none."""
        at, found = (CLASSES + 1) * column, None
        for cells in self._waiting_elsewhere[index]:
            if cells[at + CLASSES]:
                here = cells[at : at + CLASSES].tolist()
                found = here if found is None else [one + other for one, other in zip(found, here, strict=True)]
        return found

    def spent(self, tenant_slot: int, minute: int) -> tuple[int, int, int, int]:
        """What a tenant has spent, of all relays.

        Its requests in `minute` and in the one before, its tokens since the supervisor has started, and those that its
        requests in flight may still spend.
        """
        now = before = tokens = reserved = 0
        at = 2 * tenant_slot + (minute & 1)
        for minutes, spent, held in self._by_tenant:
            this, last = minutes[at], minutes[at ^ 1]
            if this >> _MINUTE_BITS == minute:
                now += this & _MINUTE_MASK
            if last >> _MINUTE_BITS == minute - 1:
                before += last & _MINUTE_MASK
            tokens += spent[tenant_slot]
            reserved += held[tenant_slot]
        return now, before, tokens, reserved

    def news(self, index: int) -> list[tuple[int, int]]:
        """What the other relays have published since the last call of the reader `index`, as (block hash, slot).

        The first call gives what is left of everything, that of a former relay of the same row too.
        """
        seen = self._seen.get(index)
        if seen is None:
            seen = self._seen[index] = [0] * self.relays
            own_too = True
        else:
            own_too = False
        found: list[tuple[int, int]] = []
        for number, row in enumerate(self._rows):
            if number != index or own_too:
                seen[number], news = row.since(seen[number])
                found += news
        return found

    def clear(self, index: int) -> None:
        """Forget what a relay had in flight and in its queues, because it has died. For the supervisor.

        What its tenants have spent still counts, and its prefix owners can still be read.
        """
        row, empty = self._rows[index], bytes(WORKERS * _CELL)
        row.requests.cast("B")[:] = empty
        row.tokens.cast("B")[:] = empty
        row.suspects.cast("B")[:] = empty
        row.reserved.cast("B")[:] = bytes(TENANTS * _CELL)
        for column in range(QUEUES):
            row.wait(column, [0] * CLASSES)
        for slot, tokens in enumerate(row.spent.tolist()):
            if tokens:
                self._dead.spend(slot, 0, tokens=tokens)
        for at, cell in enumerate(row.minutes.tolist()):
            if cell:
                self._dead.spend(at // 2, cell >> _MINUTE_BITS, requests=cell & _MINUTE_MASK)
        row.spent.cast("B")[:] = bytes(TENANTS * _CELL)
        row.minutes.cast("B")[:] = bytes(2 * TENANTS * _CELL)
