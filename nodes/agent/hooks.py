"""What an agent needs of the parts that `nodes` does not import."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hooks:
    """Given by whoever submits the worker's job; by default there is nothing of the kind.

    Args:
        is_taken_away: whether the scheduler ends the job of its own accord, see Signals.hand_back.
        why_ended: why the scheduler ends the job, in words; empty if it is unknown.
        ends_at: Unix time of the job's walltime limit; None if it is unknown.
        controller: module and words of a controller of the fleet, see standby.py.
    """

    is_taken_away: Callable[[], bool] = field(default=bool)
    why_ended: Callable[[], str] = field(default=str)
    ends_at: Callable[[], float | None] = field(default=type(None))
    controller: Sequence[str] = ()
