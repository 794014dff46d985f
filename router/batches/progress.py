"""From one state of a batch to the next: the only place where that is decided."""

import msgspec

from .records import BatchState, Status

_RANKS = {Status.VALIDATING: 0, Status.IN_PROGRESS: 1, Status.FINALIZING: 2, Status.CANCELLING: 3}
_LAST = 4
_AT: dict[Status, str] = {status: f"{status}_at" for status in Status if status is not Status.VALIDATING}


def advanced(old: BatchState, new: BatchState) -> BatchState:
    """`new`, as far as it may follow `old`, with the next revision; `old` itself where nothing of it may.

    A batch never goes back: its end stays, times and files that were told once stay what they were.
    """
    if old.has_ended:
        return old
    changes = {name: getattr(old, name) for name in _KEPT if getattr(old, name) is not None}
    if rank(new.status) < rank(old.status):
        changes["status"] = old.status
    found = msgspec.structs.replace(new, revision=old.revision, **changes)
    return old if found == old else msgspec.structs.replace(found, revision=old.revision + 1)


def entered(state: BatchState, status: Status, now: float, **changes: object) -> BatchState:
    """The state with another status and its time, and other `changes`."""
    return msgspec.structs.replace(state, status=status, **{_AT[status]: int(now), **changes})


def newest(seen: BatchState | None, found: BatchState) -> BatchState:
    """Of a state that was seen before and what a file says now, the later one: a filesystem may show an old file."""
    return found if seen is None or found.revision >= seen.revision else seen


def rank(status: Status) -> int:
    """How far a status is on the way; ends are the furthest."""
    return _RANKS.get(status, _LAST)


_KEPT = (*_AT.values(), "model", "output_file_id", "error_file_id")
