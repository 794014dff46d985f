"""Which ends of router, controller and the program for batches the process that keeps them takes for final ones."""

import signal
from collections.abc import Iterable
from typing import Any, cast

import pytest

from slurminfer.jobs.fleet import __main__ as program
from slurminfer.jobs.fleet.exits import COULD_NOT_BEGIN, DEPLOYMENT_STOPPED, TOLD_TO_END
from slurminfer.jobs.serve import router_job
from slurminfer.router.exits import STOPPED

_LOOKS = 5


class Ended:
    """A process that has ended as soon as somebody looks."""

    def __init__(self, codes: Iterable[int | None]) -> None:
        self._codes = iter(codes)

    def poll(self) -> int | None:
        return next(self._codes)


@pytest.mark.parametrize(
    ("code", "came", "starts"),
    [
        (DEPLOYMENT_STOPPED, [], 1),
        (TOLD_TO_END, [], _LOOKS),
        (TOLD_TO_END, [signal.SIGUSR2], _LOOKS),
        (TOLD_TO_END, [signal.SIGTERM], 1),
        (COULD_NOT_BEGIN, [], _LOOKS),
        (-signal.SIGKILL, [], _LOOKS),
    ],
)
def test_a_controller_is_started_again_unless_nobody_needs_one(monkeypatch, code, came, starts):
    monkeypatch.setattr(router_job, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(router_job, "_FIRST_PAUSE_S", 0.0)
    started: list[int] = []
    batches_started: list[int] = []

    def start() -> Any:
        started.append(1)
        return Ended([code])

    def start_batches() -> Any:
        batches_started.append(1)
        return Ended([-signal.SIGKILL])

    router = router_job._Kept("router", lambda: cast(Any, Ended([*[None] * (2 * _LOOKS - 2), STOPPED])))
    controller = router_job._Kept("controller", start)
    router.look()
    batches = router_job._Kept("program for batches", start_batches)
    assert router_job._keep(router, controller, batches, came) == STOPPED
    assert len(started) == starts
    assert len(batches_started) == (0 if signal.SIGTERM in came else _LOOKS)


def test_a_controller_of_a_stopped_deployment_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["fleet", str(tmp_path)])
    assert program.main() == DEPLOYMENT_STOPPED
