"""How long ranks and rank 0 wait for each other before one of them counts as gone."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds; rank 0 and all other ranks should have the same."""

    meeting_s: float = 600.0  # for all ranks to come: nodes of a job may start one after the other
    hello_s: float = 5.0  # for a caller to prove who it is
    loading_s: float = 30.0  # of silence, from a rank that loads: PyTorch may hold the GIL for seconds
    loaded_s: float = 5.0  # of silence, from a rank that has loaded
    tick_s: float = 1.0  # between rank 0's looks at who is silent; of one look no more than this counts
    heartbeat_s: float = 1.0  # between two messages of a rank
    unacknowledged_s: float = 10.0  # in which rank 0's node has acknowledged nothing of a rank: it has vanished


DEFAULT_TIMEOUTS = Timeouts()
