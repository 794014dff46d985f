"""What a controller may do. Each action says why, in words for the user."""

import msgspec


class Submit(msgspec.Struct, frozen=True, kw_only=True):
    """Start one more worker."""

    pool: str
    time_s: float  # walltime limit
    why: str
    time_min_s: float | None = None  # the least that the scheduler may shorten the limit to; None: it may not
    replaces: str = ""  # id of the worker that it takes over from
    predicted_s: float | None = None  # of a backfill pool: for so long it is expected to serve


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Tell a worker to take no more requests, to finish those in flight, and to end."""

    worker: str
    why: str


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """End a worker's job at once: it does not run yet, or does not obey."""

    worker: str
    why: str


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """Remember how many workers a pool should have now."""

    pool: str
    workers: int
    why: str
    enough_since: float | None = None  # since when one fewer would have been enough


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Do nothing for a pool that lacks workers, and say why. `gave_up`: until a user changes something."""

    pool: str
    why: str
    until: float | None = None
    gave_up: bool = False


Action = Submit | Drain | Cancel | Want | Wait
