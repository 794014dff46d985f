"""Which kept responses are to go: those that nobody needs, and those that are too many. Pure: by their ids alone.

A response is over when it was deleted or is too old. Its turn stays as long as one that is not over comes after it.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .ids import ResponseId

_PART_KEPT = 0.9  # of what may be there is left when something has to be removed


class KeptFile(NamedTuple):
    """A response on disk."""

    id: ResponseId
    size: int
    is_removed: bool  # for clients


class Amount(NamedTuple):
    """Of kept responses."""

    responses: int
    bytes: int

    @classmethod
    def of(cls, files: Iterable[KeptFile]) -> "Amount":
        """That of some files."""
        sizes = [file.size for file in files]
        return cls(len(sizes), sum(sizes))

    def fits(self, most: "Amount") -> bool:
        """Whether it is not more than `most`."""
        return self.responses <= most.responses and self.bytes <= most.bytes


def needless(files: Iterable[KeptFile], is_over: Callable[[KeptFile], bool]) -> list[KeptFile]:
    """The files that are over, and that nothing comes after that is not. The newest come first."""
    found: list[KeptFile] = []
    for turns in _conversations(files).values():
        by_turn = defaultdict(list)
        for file in turns:
            by_turn[file.id.turn].append(file)
        needed = {file.id.text for file in turns if not is_over(file)}
        going_back = [file for file in turns if file.id.text in needed]
        while going_back:
            for before in by_turn.get(going_back.pop().id.after, ()):
                if before.id.text not in needed:
                    needed.add(before.id.text)
                    going_back.append(before)
        found += [file for file in turns if file.id.text not in needed]
    return sorted(found, key=lambda file: file.id, reverse=True)


def surplus(files: Sequence[KeptFile], most: Amount) -> list[KeptFile]:
    """What is to be removed where there is more than `most`, until there is some room.

    Conversations go as a whole, the one first that has been idle for longest. Of the last one, those branches go first
    that have been idle for longest.
    """
    left = Amount.of(files)
    if left.fits(most):
        return []
    enough = Amount(int(most.responses * _PART_KEPT), int(most.bytes * _PART_KEPT))
    found: list[KeptFile] = []
    conversations = sorted(_conversations(files).values(), key=lambda turns: max(file.id for file in turns))
    for number, turns in enumerate(conversations, 1):
        if left.fits(enough):
            break
        is_last = number == len(conversations)
        for file in _branch_by_branch(turns) if is_last else turns:
            if is_last and left.fits(enough):
                break
            found.append(file)
            left = Amount(left.responses - 1, left.bytes - file.size)
    return found


def fair_share(amounts: Sequence[int], most: int) -> int:
    """How much each may have so that all together have at most `most`: whoever has less loses nothing."""
    left = most
    for number, amount in enumerate(sorted(amounts)):
        share = left // (len(amounts) - number)
        if amount > share:
            return share
        left -= amount
    return most


def _conversations(files: Iterable[KeptFile]) -> dict[tuple[str, str], list[KeptFile]]:
    found = defaultdict(list)
    for file in files:
        found[file.id.mark, file.id.conversation].append(file)
    return found


def _branch_by_branch(turns: Sequence[KeptFile]) -> Iterable[KeptFile]:
    """The turns of a conversation so that each comes before the one that it goes on with."""
    by_turn = {file.id.turn: file for file in turns}
    after = defaultdict[str, int](int)  # how many go on with a turn
    for file in turns:
        after[file.id.after] += 1
    ends = [(file.id, file) for file in turns if not after[file.id.turn]]
    heapq.heapify(ends)
    while ends:
        file = heapq.heappop(ends)[1]
        yield file
        after[file.id.after] -= 1
        before = by_turn.get(file.id.after)
        if before is not None and not after[file.id.after]:
            heapq.heappush(ends, (before.id, before))
