"""What an agent makes of an engine that has ended, and of the signal that may come with it."""

from types import SimpleNamespace
from typing import Any

import pytest

from slurminfer.core.errors import EngineError
from slurminfer.core.records import NodeRecord
from slurminfer.nodes.agent.group import EngineGroup
from slurminfer.nodes.agent.signals import Signals


class LateSignals(Signals):
    """An agent's signals, of which one comes at the first wait."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._late = reason

    def wait(self, seconds: float) -> None:
        self.reason = self._late


def group_of(exit_code: int) -> EngineGroup:
    word = NodeRecord(
        node_rank=0, host="n1", pid=1, rendezvous="", updated_at=0.0, exit_code=exit_code, reason="engine has ended"
    )
    task: Any = SimpleNamespace(
        pool=SimpleNamespace(nodes=1),
        worker_id="cpu-0",
        place=SimpleNamespace(epoch=0),
        run=SimpleNamespace(read_nodes=lambda *_: []),
        node_record=lambda *_: word,
    )
    process: Any = SimpleNamespace(exit_code=lambda: exit_code, exit_reason=lambda: "engine has ended")
    launch: Any = SimpleNamespace(rendezvous="")
    return EngineGroup(task, launch, process)


@pytest.mark.parametrize("exit_code", [0, -15])
def test_an_engine_that_was_told_to_end_is_no_failure_though_the_agent_hears_it_later(exit_code):
    group_of(exit_code).check(LateSignals("ended by SIGTERM"))


@pytest.mark.parametrize("exit_code", [1, -9, -6])
def test_an_engine_that_died_of_itself_is_the_reason_whatever_signal_follows(exit_code):
    with pytest.raises(EngineError, match="engine has ended"):
        group_of(exit_code).check(LateSignals("ended by SIGTERM"))
