"""When a router may take over from another one, and when one that was replaced may end. Touches nothing."""

from ..core.records import WorkerState
from .fleet.registry import Registry

# For a router that nobody sends a request any more. Longer than a client's connection may be idle (75 s), so that none
# is closed under a client that uses it again.
IDLE_S = 120.0


class Retirement:
    """How long a router that was replaced has had nothing to do."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._requests, self._idle_since = -1, 0.0

    def may_end(self, now: float, *, is_replaced: bool, requests: int, in_flight: int) -> bool:
        """Whether nobody has needed the router for long enough.

        Args:
            now: monotonic seconds.
            is_replaced: whether clients find another router that answers.
            requests: answered so far.
            in_flight: that are being answered, or wait.
        """
        if not is_replaced or in_flight or requests != self._requests:
            self._requests, self._idle_since = requests, now
        return now - self._idle_since >= self._idle_s


def can_serve(registry: Registry) -> bool:
    """Whether a router reaches what there is: every ready worker was asked, and one answers, if there is any."""
    workers = registry.all()
    if any(worker.is_new for worker in workers):
        return False
    ready = [worker for worker in workers if worker.record.state is WorkerState.READY]
    return not ready or any(worker.choosable for worker in ready)
