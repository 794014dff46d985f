"""Which workers have which prompt blocks in their caches, as far as the router can tell.

The cache of each worker is modelled as what engines have: the least recently used blocks go first when it is full, and
of one prompt the last blocks first. The model learns from what engines say of their hits.
"""

import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence

from .prefix import LEVEL_BITS, SMALLEST

MOST_ENTRIES = 2**18
# A block that was not used for so many turns is told again to the other relays.
_RETELL_TURNS = 16
_MOST_NEWS = 2**14
# What a call does of the work that ended workers and a full table leave.
_SWEEP = 256
# An engine that found less than this part of what was expected has dropped blocks that the model still has.
_MISS = 0.5
_LEAST_BYTES, _LEAST_PART = 2**16, 16
# So far the model's limit then goes towards the age of what was missed, and by this factor at least.
_TOWARDS, _SHRINK = 0.5, 0.95
# Only hits on what is older say that the limit is not too high.
_OLD, _GROW = 0.75, 1.02
# One that found so much more, although its cache should be full, holds more than it says: blocks in host memory, say.
_SURPRISE_TOKENS, _FULL, _GROW_MORE, _MOST_PART = 256, 0.9, 1.05, 8
# Keys of what was computed after the last whole block and cannot be found again: negative, with the bytes as low bits.
_TAIL_BITS = 26
_MOST_TAIL = 2**_TAIL_BITS - 1
_RELAYS = 64


class Cache:
    """The model of one worker's cache. Keys stand in the order in which they go; values are turns of the last use."""

    __slots__ = ("answered", "bit", "first_use", "keys", "limit", "room", "size", "told")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.keys: OrderedDict[int, int] = OrderedDict()
        self.first_use = -1  # the turn of the last use of what goes next; -1: there was nothing
        self.size = 0  # bytes
        self.room = 2.0  # 1 and the part of it that is empty
        self.answered = 0  # the last turn whose request was answered: what was sent before is computed
        self.told = self.limit = math.inf  # bytes that it holds: as the engine says, and as its hits show

    def tell(self, told: float) -> None:
        """Take what the engine says. What was learned is a part of that, or a multiple."""
        self.limit = told if math.isinf(self.told) or math.isinf(told) else self.limit * told / self.told
        self.told = told

    def learn(self, expected: int, found: int, age: float) -> None:
        """Learn from the tokens that were expected and found in the cache, of an age as of `Owners.age`."""
        if found < expected * _MISS:
            if age > 0:
                held = min(self.limit, self.size)
                least = _LEAST_BYTES if math.isinf(self.told) else self.told / _LEAST_PART
                self.limit = max(least, min(held * _SHRINK, held * (1 - _TOWARDS * (1 - age))))
        elif found > expected + _SURPRISE_TOKENS and found * _MISS > expected and self.size > self.limit * _FULL:
            self.limit = min(self.limit * _GROW_MORE, self.told * _MOST_PART)
        elif expected and age > _OLD and self.limit < self.told:
            self.limit = min(self.limit * _GROW, self.told)


_UNKNOWN = Cache(0)  # of a worker of which nothing is known


class Owners:
    """A bounded table of blocks and the workers that hold them. `relay`: index of the relay that it belongs to."""

    def __init__(self, most_entries: int = MOST_ENTRIES, relay: int = 0) -> None:
        self._most = most_entries
        self._relay = relay
        self._masks: dict[int, int] = {}  # block -> bits of its owners, which may have ended
        self._caches: dict[int, Cache] = {}  # by slot
        self._ended: deque[Cache] = deque()  # whose entries are still in the table
        self.live = 0  # bits of all workers of which something is known
        self.changes = 0  # of which worker has which bit
        self._free: list[int] = []
        self._entries = 0
        self.turn = _RETELL_TURNS  # requests added so far, and as many that what is new, used at -1, is always told
        self._news: deque[tuple[int, int]] = deque(maxlen=_MOST_NEWS)

    def __len__(self) -> int:
        """Pairs of a block and a worker in the table, those of ended workers that were not taken out yet included."""
        return self._entries

    def levels(self, blocks: Sequence[int]) -> list[tuple[int, int]]:
        """Who holds how many leading blocks, as (count, bits of the workers that hold just so many), counts rising."""
        found: list[tuple[int, int]] = []
        holders, owners = self.live, self._masks.get
        if not holders or not blocks:
            return found
        for count, block in enumerate(blocks):
            still = holders & owners(block, 0)
            if still != holders:
                if count:
                    found.append((count, holders & ~still))
                holders = still
                if not still:
                    return found
        found.append((len(blocks), holders))
        return found

    def bit(self, slot: int) -> int:
        """The worker's bit in `levels`; 0 if nothing is known of it."""
        return self.cache(slot).bit

    def cache(self, slot: int) -> Cache:
        """The model of the worker's cache, to be read. It is another one after `changes`."""
        return self._caches.get(slot, _UNKNOWN)

    def age(self, slot: int, block: int) -> tuple[float, float]:
        """When a block that the worker holds was last used there: 1 when its oldest block was, 0 just now.

        Also relative to the oldest block that the cache will have when it is full; this is 0 where it is not known how
        much the cache holds. The first number is 0 also if the block may not be computed yet, because no request that
        was sent since then was answered.
        """
        cache, turn = self._caches[slot], self.turn
        oldest = cache.first_use
        last_use = cache.keys.get(block, oldest)
        age = (turn - last_use) / (turn - oldest) if turn > oldest else 0.0
        in_full = age * cache.size / cache.limit if cache.size < cache.limit else age
        return (0.0 if last_use > cache.answered else age), in_full

    def add(self, slot: int, blocks: Sequence[int], tail_bytes: int, cache_bytes: float) -> None:
        """Note that a worker gets a prompt of these blocks and `tail_bytes` after them, the answer included.

        cache_bytes: what its cache holds; infinity if that is not known.
        """
        self.turn += 1
        cache = self._caches.get(slot) or self._new_cache(slot)
        if cache_bytes != cache.told:
            cache.tell(cache_bytes)
        serial = (self.turn * _RELAYS + self._relay) << _TAIL_BITS
        tail = -(serial | (tail_bytes if tail_bytes < _MOST_TAIL else _MOST_TAIL))
        untold = self._use(cache, (tail, *reversed(blocks)))
        self._news.extend([(key, slot) for key in untold])
        self._trim(cache)

    def merge(self, news: Sequence[tuple[int, int]]) -> None:
        """Note what another relay has added: keys and the slots of their workers, in its order."""
        by_slot: defaultdict[int, list[int]] = defaultdict(list)
        for key, slot in news:
            by_slot[slot].append(key)
        for slot, keys in by_slot.items():
            cache = self._caches.get(slot) or self._new_cache(slot)
            self._use(cache, keys)
            self._trim(cache)

    def news(self) -> list[tuple[int, int]]:
        """What `merge` of the other relays needs, since the last call."""
        news = list(self._news)
        self._news.clear()
        return news

    def correct(self, slot: int, expected: int, found: int, *, turn: int, age: float) -> None:
        """Learn from an answer: `expected` tokens were taken to be in the cache, and the engine has found `found`.

        turn: as of when the request was sent; age: that of the last block of the expected ones then.
        """
        cache = self._caches.get(slot)
        if cache is not None:
            if turn > cache.answered:
                cache.answered = turn
            limit = cache.limit
            cache.learn(expected, found, age)
            if cache.limit != limit:
                self._trim(cache)
                if math.isinf(limit):
                    self._guess(cache.limit)

    def forget(self, slot: int) -> None:
        """Drop all that a worker holds. Its entries leave the table bit by bit, in later calls of `add`."""
        cache = self._caches.pop(slot, None)
        if cache is not None:
            self.live &= ~cache.bit
            self.changes += 1
            self._ended.append(cache)

    def _guess(self, limit: float) -> None:
        """Take what was learned of one worker, which did not say what it holds, for all of which nothing is known."""
        for cache in self._caches.values():
            if math.isinf(cache.limit):
                cache.limit = limit
                self._trim(cache)

    def _new_cache(self, slot: int) -> Cache:
        position = self._free.pop() if self._free else len(self._caches) + len(self._ended)
        cache = self._caches[slot] = Cache(1 << position)
        self.live |= cache.bit
        self.changes += 1
        return cache

    def _use(self, cache: Cache, keys: Iterable[int]) -> list[int]:
        """Make `keys` the last to go, and add those that are not there. Returns those that the others do not know."""
        held, masks, turn, bit = cache.keys, self._masks, self.turn, cache.bit
        told_before, untold, size, entries = turn - _RETELL_TURNS, [], 0, len(held)
        get, move, owners = held.get, held.move_to_end, masks.get  # looked up once
        for key in keys:
            before = get(key, -1)
            if before >= 0:
                move(key)
            elif key >= 0:
                size += SMALLEST << (key & LEVEL_BITS)
                masks[key] = owners(key, 0) | bit
            else:
                size += -key & _MOST_TAIL
            held[key] = turn
            if before < told_before:
                untold.append(key)
        cache.size += size
        self._entries += len(held) - entries
        return untold

    def _trim(self, cache: Cache) -> None:
        if cache.size > cache.limit:
            self._drop(cache, len(cache.keys) - 1, cache.limit)
        _note_room(cache)
        if self._ended:
            self._sweep()
        if self._entries > self._most and self._caches:
            largest = max(self._caches.values(), key=lambda one: len(one.keys))
            self._drop(largest, self._entries - self._most + _SWEEP)
            _note_room(largest)

    def _sweep(self) -> None:
        cache = self._ended[0]
        self._drop(cache, _SWEEP)
        if not cache.keys:
            self._ended.popleft()
            self._free.append(cache.bit.bit_length() - 1)

    def _drop(self, cache: Cache, most: int, limit: float = -1.0) -> None:
        """Drop at most so many of the oldest blocks, until the rest has no more than `limit` bytes."""
        held, masks, bit, size, entries = cache.keys, self._masks, cache.bit, cache.size, len(cache.keys)
        pop = held.popitem
        while most > 0 and held and size > limit:
            key, _ = pop(False)
            most -= 1
            if key >= 0:
                size -= SMALLEST << (key & LEVEL_BITS)
                rest = masks[key] ^ bit
                if rest:
                    masks[key] = rest
                else:
                    del masks[key]
            else:
                size -= -key & _MOST_TAIL
        cache.size = size
        self._entries += len(held) - entries


def _note_room(cache: Cache) -> None:
    cache.first_use = next(iter(cache.keys.values()), -1)
    cache.room = 2.0 - cache.size / cache.limit if cache.limit else 1.0


def bits_of(mask: int, most: int) -> list[int]:
    """The single bits of a mask, at most so many."""
    found: list[int] = []
    while mask and len(found) < most:
        lowest = mask & -mask
        found.append(lowest)
        mask ^= lowest
    return found
