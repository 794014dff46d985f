"""Reservations: when nodes are set aside, and how long a job can be that must end before.

A job that names no reservation cannot use reserved nodes, whoever has reserved them, and pends until the reservation is
over if its time limit reaches into it. A reservation with the flag MAGNETIC takes in jobs of its users by itself.
"""

import os
import pwd
from collections.abc import Collection, Iterable, Sequence

import msgspec

from .client import UNIX_TIMES, ask
from .hostlist import expand
from .values import items, pairs, unix_time

_MINUTE = 60  # Slurm's time limits are whole minutes
_DENIED = "-"  # before the name of a user or an account that may not use it


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that are set aside for a time. Times are Unix seconds."""

    name: str
    starts_at: float
    ends_at: float
    nodes: frozenset[str]
    partition: str = ""  # in which the nodes were looked for; empty: anywhere
    flags: frozenset[str] = frozenset()
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    def admits(self, user: str, accounts: Collection[str] = ()) -> bool:
        """Whether jobs of the user under one of the accounts may run in it."""
        return _is_listed(self.users, (user,)) or _is_listed(self.accounts, accounts)

    def takes_in(self, user: str, accounts: Collection[str] = ()) -> bool:
        """Whether jobs of the user run in it without naming it."""
        return "MAGNETIC" in self.flags and self.admits(user, accounts)


def reservations() -> tuple[Reservation, ...]:
    """All reservations that Slurm has, those that begin first in front. Raises SlurmError."""
    return parse_reservations(ask(["scontrol", "show", "reservation", "--oneliner"], UNIX_TIMES))


def parse_reservations(text: str) -> tuple[Reservation, ...]:
    """One reservation in each line; lines without one are left out."""
    found = (_reservation(pairs(line)) for line in text.splitlines() if line.startswith("ReservationName="))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.starts_at))


def blocking(
    found: Iterable[Reservation], user: str | None = None, accounts: Collection[str] = (), named: str | None = None
) -> tuple[Reservation, ...]:
    """Those whose nodes a job cannot use: all but the one that it names, and those that take it in.

    Args:
        found: the reservations.
        user: name of the job's user; default: this process's.
        accounts: those that the job may run under.
        named: the job's --reservation.
    """
    name = user if user is not None else _own_name()
    return tuple(one for one in found if one.name != named and not one.takes_in(name, accounts))


def longest_limit_s(blocked: Sequence[Reservation], nodes: Collection[str], now: float, count: int = 1) -> int | None:
    """The longest time limit with which a job that starts now ends before nodes are set aside.

    Args:
        blocked: the reservations whose nodes the job cannot use.
        nodes: names of those that the job may run on: of its partitions, or its --nodelist.
        now: Unix time of the start.
        count: nodes that the job needs at the same time.

    Returns whole minutes, in seconds: 0 if too few nodes are free of reservations now, None if there is no bound.
    """
    left = sorted((_free_s(blocked, node, now) for node in nodes), reverse=True)
    if len(left) < count:
        return 0
    seconds = left[count - 1]
    return None if seconds == float("inf") else int(seconds // _MINUTE) * _MINUTE


def free_again(blocked: Sequence[Reservation], nodes: Collection[str], at: float, count: int = 1) -> float | None:
    """The Unix time after `at` from which so many of the nodes are free of reservations; None: there is none.

    Args:
        blocked: the reservations whose nodes the job cannot use.
        nodes: names of those that the job may run on.
        at: Unix time at which too few are free.
        count: nodes that the job needs at the same time.
    """
    ends = sorted(one.ends_at for one in blocked if one.ends_at > at)
    return next((end for end in ends if sum(_free_s(blocked, node, end) > 0 for node in nodes) >= count), None)


def _free_s(blocked: Sequence[Reservation], node: str, now: float) -> float:
    """Seconds from now on in which no reservation has the node."""
    starts = (one.starts_at for one in blocked if one.ends_at > now and node in one.nodes)
    return max(min(starts, default=float("inf")) - now, 0.0)


def _reservation(fields: dict[str, str]) -> Reservation | None:
    starts_at, ends_at = (unix_time(fields.get(key, "")) for key in ("StartTime", "EndTime"))
    if starts_at is None or ends_at is None:
        return None
    return Reservation(
        name=fields["ReservationName"],
        starts_at=starts_at,
        ends_at=ends_at,
        nodes=frozenset(expand(fields.get("Nodes", ""))),
        partition="".join(items(fields.get("PartitionName", ""))),
        flags=frozenset(items(fields.get("Flags", ""))),
        users=items(fields.get("Users", "")),
        accounts=items(fields.get("Accounts", "")),
    )


def _is_listed(listed: tuple[str, ...], names: Collection[str]) -> bool:
    """Whether one of the names is in a list that either admits some, or, with a - before each, denies some."""
    denied = {name.removeprefix(_DENIED) for name in listed if name.startswith(_DENIED)}
    if denied:
        return any(name not in denied for name in names)
    return any(name in listed for name in names)


def _own_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name
