"""An engine's processes on all nodes of a worker, as the head sees them: its own, and what the other agents say."""

import time

from ..core.errors import EngineError
from ..core.records import NodeRecord
from .engine_process import EngineProcess
from .launch import EngineLaunch
from .task import Task

# When one process dies the others do too, but not at the same moment: so long to wait for word of who was first.
_ECHO_S = 1.5
_ECHO_TICK_S = 0.1


class EngineGroup:
    """Started by one launch; one process dead is all dead."""

    def __init__(self, task: Task, launch: EngineLaunch, process: EngineProcess) -> None:
        self._task, self.launch, self.process = task, launch, process

    def has_died(self) -> bool:
        """Whether any of the processes has ended."""
        return self.process.exit_code() is not None or bool(self._casualties())

    def check(self) -> None:
        """Raises EngineError that says which process has died and why, if one has."""
        if self.has_died():
            raise EngineError(self.cause())

    def cause(self) -> str:
        """Who has died and why, the first of them first."""
        if self._task.pool.nodes == 1:
            return self.process.epitaph()
        own = self._task.node_record(self.process, self.launch)
        if not own.reason:
            return "; ".join(map(str, self._casualties()))
        return "; ".join(map(str, sorted([own, *self._echo()], key=lambda record: record.updated_at)))

    def _echo(self) -> list[NodeRecord]:
        deadline = time.monotonic() + _ECHO_S
        while not (casualties := self._casualties()) and time.monotonic() < deadline:
            time.sleep(_ECHO_TICK_S)
        return casualties

    def _casualties(self) -> list[NodeRecord]:
        """The other nodes' processes of this launch that have died, the first first."""
        task = self._task
        nodes = task.run.read_nodes(task.worker_id, task.place.epoch, task.pool.nodes)
        dead = [node for node in nodes if node.reason and node.rendezvous == self.launch.rendezvous]
        return sorted(dead, key=lambda node: node.updated_at)
