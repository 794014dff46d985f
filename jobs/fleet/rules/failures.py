"""Workers that fail again and again: when the next one may be tried, and when no more is."""

from collections.abc import Sequence

import msgspec

from .observed import Ended, Member, Past, Stage

# A worker that was ready for so long has shown that its pool can work.
HEALTHY_S = 300.0
_FIRST_DELAY_S, _LONGEST_DELAY_S = 10.0, 600.0
# Only failures of the last hour delay the next try.
_MEMORY_S = 3600.0
# After so many failures one after the other, without one that has worked, a pool gives up.
MOST_ROUNDS = 5


class Trial(msgspec.Struct, frozen=True):
    """What failures mean for the next submission.

    Args:
        not_before: Unix time.
        is_single: no worker has worked since the last failure, so that only one is tried at a time.
        gave_up: why none is tried any more; empty otherwise.
    """

    not_before: float = 0.0
    is_single: bool = False
    gave_up: str = ""


def trial(past: Past, members: Sequence[Member], now: float) -> Trial:
    """What the failures of a pool mean. Several at the same time count as one: they may have one cause."""
    since = max(past.retry_asked_at, now - _MEMORY_S)
    failed = [one for one in past.ended if _is_failure(one) and one.at > past.retry_asked_at]
    recent = [one for one in failed if one.at > since]
    tries = rounds(recent)
    delay = min(_FIRST_DELAY_S * 2 ** (tries - 1), _LONGEST_DELAY_S) if tries else 0.0
    not_before = min(recent[-1].at, now) + delay if recent else 0.0  # another controller's clock may be ahead
    if any(member.stage is Stage.READY for member in members):
        return Trial(not_before)
    proven_at = max((one.at for one in past.ended if one.ready_s >= HEALTHY_S), default=0.0)
    unproven = [one for one in failed if one.at > proven_at]
    has_served = past.load_s is not None or proven_at > 0
    return Trial(not_before, bool(unproven), _reason_to_give_up(unproven, has_served))


def _reason_to_give_up(failed: Sequence[Ended], has_served: bool) -> str:
    """Why no other try is worth it. Where a worker of the pool has served before, one bad node may be to blame."""
    if not failed:
        return ""
    last = failed[-1]
    if last.is_final and not has_served:
        return f"{last.id} ended: {last.cause}; another try would end in the same way"
    if (tries := rounds(failed)) >= MOST_ROUNDS:
        return f"{tries} workers in a row have ended before they could serve; the last, {last.id}: {last.cause}"
    return ""


def _is_failure(one: Ended) -> bool:
    return not one.is_wanted and not one.by_scheduler and one.ready_s < HEALTHY_S


def rounds(failed: Sequence[Ended]) -> int:
    """How many ended one after the other: each was submitted when the one before it had failed already."""
    found, until = 0, -1.0
    for one in sorted(failed, key=lambda one: one.at):
        if one.submitted_at >= until:
            found, until = found + 1, one.at
    return found
