"""An engine's processes on all nodes of a worker, as the head sees them: its own, and what the other agents say."""

import signal
import time

from ...core.errors import EngineError, RunDirectoryError
from ...core.records import NodeRecord
from ..engines.launch import EngineLaunch
from .process import EngineProcess
from .signals import Signals
from .task import Task

# When one process dies the others do too, but not at the same moment: so long to wait for the word of all.
_ECHO_S = 1.5
_ECHO_TICK_S = 0.1
_MOST_NAMED = 3
_TOLD_TO_END = (0, -signal.SIGTERM)
_SIGNAL_S = 1.0  # by which the agent may hear later than the engine that both are to end


class EngineGroup:
    """Started by one launch; one process dead is all dead."""

    def __init__(self, task: Task, launch: EngineLaunch, process: EngineProcess) -> None:
        self._task, self.launch, self.process = task, launch, process
        self._last_word: NodeRecord | None = None

    def has_died(self) -> bool:
        """Whether any of the processes has ended."""
        return bool(self._dead())

    def check(self, signals: Signals) -> None:
        """Raise EngineError that says which process has died and why, if one has died of itself.

        Slurm sends SIGTERM to all processes of a step, so the engine may have ended before the agent has its signal.
        """
        if not self.has_died():
            return
        cause, deadline = self._cause(), time.monotonic() + _SIGNAL_S
        while self._has_ended_in_order():
            if signals.reason:
                return
            if time.monotonic() > deadline:
                break
            signals.wait(_SIGNAL_S)
        raise EngineError(cause)

    def _has_ended_in_order(self) -> bool:
        """Whether all processes of which it is known have ended as those do that are told to."""
        return all(node.exit_code in _TOLD_TO_END for node in self._dead())

    def _cause(self) -> str:
        """Who has died and why, the likeliest cause first."""
        nodes = self._task.pool.nodes
        if nodes == 1:
            return self.process.exit_reason()
        deadline = time.monotonic() + _ECHO_S
        while len(dead := self._dead()) < nodes and time.monotonic() < deadline:
            time.sleep(_ECHO_TICK_S)
        dead.sort(key=_suspicion)
        return "; ".join(map(str, dead[:_MOST_NAMED]))

    def _dead(self) -> list[NodeRecord]:
        """The last words of this launch's processes."""
        task = self._task
        if self._last_word is None and self.process.exit_code() is not None:
            self._last_word = task.node_record(self.process, self.launch)
        own = [] if self._last_word is None else [self._last_word]
        try:
            others = task.run.read_nodes(task.worker_id, task.place.epoch, task.pool.nodes)
        except RunDirectoryError:  # cannot be read now: nothing is known of the ranks
            return own
        return own + [node for node in others if node.reason and node.rendezvous == self.launch.rendezvous]


def _suspicion(node: NodeRecord) -> tuple[int, float]:
    """Sorts who may have died of itself before who has died of others: by the kind of death, then by its time.

    Whom others leave exits, or aborts as NCCL's watchdog does; no other signal comes of it. Times of two nodes are only
    as good as their clocks.
    """
    was_killed = node.exit_code is not None and node.exit_code < 0 and node.exit_code != -signal.SIGABRT
    return 0 if was_killed else 2 if node.exit_code == 0 else 1, node.updated_at
