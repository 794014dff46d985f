"""The requests that wait, in an order in which clients take turns."""

import heapq
from collections import deque
from collections.abc import Callable, Collection
from itertools import count
from typing import Any

from ..request import Request

Rank = tuple[float, int]
NO_RANK: Rank = (0.0, 0)  # of a request that has not had its turn


class WaitingQueue:
    """Requests by rank and by length. Of those that came together, one waits here for its turn, the others behind it.

    Adding and taking one costs O(log n), removing one O(1) on average: what is removed leaves its entries in the heaps,
    to be dropped when they come up or when most are such.
    """

    def __init__(self, rank: Callable[[Request], Rank]) -> None:
        """`rank`: of a request whose turn it is, from now on."""
        self._rank = rank
        self._all: dict[str, Request] = {}
        self._ranked = _Heap(lambda request: request.rank)
        self._short = _Heap(lambda request: request.remaining)
        self._heads: dict[str, str] = {}  # by flow, the request whose turn it is
        self._behind: dict[str, deque[Request]] = {}  # by flow

    def __len__(self) -> int:
        return len(self._all)

    def push(self, request: Request) -> None:
        """Add a request that is new, behind those of its flow; it takes the place of one with its id."""
        self.remove(request.id)
        self._all[request.id] = request
        if request.flow in self._heads:
            self._behind.setdefault(request.flow, deque()).append(request)
        else:
            self._give_turn(request)

    def push_again(self, request: Request) -> None:
        """Add a request that was taken out, by the rank that it had if it has had its turn."""
        if request.rank == NO_RANK:
            self.push(request)
            return
        self._all[request.id] = request
        self._heads.setdefault(request.flow, request.id)
        self._enter(request)

    def first(self) -> Request | None:
        """The request that ranks first, which stays; None if there is none."""
        return self._ranked.first(self._is_present)

    def shortest(self) -> Request | None:
        """The request with the fewest tokens to compute, which stays; None if there is none."""
        return self._short.first(self._is_present)

    def first_of_others(self, flows: Collection[str]) -> Request | None:
        """The request that ranks first of those of other flows; O(n) for n flows that wait."""
        heads = (self._all[id] for flow, id in self._heads.items() if flow not in flows)
        return min(heads, key=lambda request: request.rank, default=None)

    def has_others(self, flow: str) -> bool:
        """Whether a request of another flow waits for its turn."""
        return len(self._heads) > (flow in self._heads)

    def remove(self, id: str) -> Request | None:
        """Take out the request of that id; None if it is not there."""
        request = self._all.pop(id, None)
        if request is not None and self._heads.get(request.flow) == id:
            self._pass_turn(request.flow)
        self._ranked.clear_out(self._is_present, len(self._all))
        self._short.clear_out(self._is_present, len(self._all))
        return request

    def _pass_turn(self, flow: str) -> None:
        del self._heads[flow]
        behind = self._behind.get(flow, deque())
        while behind:
            request = behind.popleft()
            if self._is_present(request):
                self._give_turn(request)
                break
        if not behind:
            self._behind.pop(flow, None)

    def _give_turn(self, request: Request) -> None:
        self._heads[request.flow] = request.id
        request.rank = self._rank(request)
        self._enter(request)

    def _enter(self, request: Request) -> None:
        self._ranked.push(request)
        self._short.push(request)

    def _is_present(self, request: Request) -> bool:
        return self._all.get(request.id) is request


class _Heap:
    """Requests by a key, and those among them that are there no more."""

    def __init__(self, key: Callable[[Request], Any]) -> None:
        self._key, self._numbers = key, count()
        self._entries: list[tuple[Any, int, Request]] = []  # the number in between is never equal

    def push(self, request: Request) -> None:
        heapq.heappush(self._entries, (self._key(request), next(self._numbers), request))

    def first(self, is_present: Callable[[Request], bool]) -> Request | None:
        while self._entries and not is_present(self._entries[0][2]):
            heapq.heappop(self._entries)
        return self._entries[0][2] if self._entries else None

    def clear_out(self, is_present: Callable[[Request], bool], present: int) -> None:
        """Drop what is there no more, if that is most."""
        if len(self._entries) > 2 * present + 16:
            self._entries = [entry for entry in self._entries if is_present(entry[2])]
            heapq.heapify(self._entries)
