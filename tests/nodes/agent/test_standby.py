"""When an agent starts a controller: where there is a deployment, and nobody has looked after it for long."""

import signal
import subprocess
import sys
from typing import Any

import pytest

from slurminfer.core import files
from slurminfer.core.records import CONTROLLER_SILENCE_S, DeploymentRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.nodes.agent import standby
from slurminfer.nodes.agent.standby import Standby

ARGV = ["controller", "run"]


class Process:
    """A controller that runs until the test ends it."""

    def __init__(self):
        self.code: int | None = None

    def poll(self):
        return self.code


class World:
    """A run directory, a clock, and the controllers that were started."""

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.now, self.beats = run, 0.0, 0
        self.started: list[list[str]] = []
        self.process: Any = Process()

    def standby(self, slot: int = 0, argv: list[str] = ARGV) -> Standby:
        return Standby(self.run, argv, slot, self._start, lambda: self.now)

    def renew(self) -> None:
        self.beats += 1
        files.write_atomic(self.run.lease_path, str(self.beats))

    def wait(self, standby: Standby, seconds: float, renewed: bool = False) -> None:
        for _ in range(int(seconds // 10)):
            self.now += 10
            if renewed:
                self.renew()
            standby.look()

    def _start(self, argv):
        self.started.append(argv)
        return self.process


@pytest.fixture
def world(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create()
    run.claims.take(DeploymentRecord(launcher="slurm", claimed_by="1 on n1", claimed_at=0.0))
    return World(run)


def test_nothing_is_started_while_a_controller_renews_its_lease(world):
    world.wait(world.standby(), 10 * CONTROLLER_SILENCE_S, renewed=True)
    assert not world.started


@pytest.mark.parametrize("was_there", [True, False])
def test_without_a_controller_one_is_started_once(world, was_there):
    if was_there:
        world.renew()
    standby = world.standby()
    world.wait(standby, CONTROLLER_SILENCE_S - 20)
    assert not world.started
    world.wait(standby, 10 * CONTROLLER_SILENCE_S)
    assert world.started == [ARGV]
    world.process.code = 0
    world.wait(standby, CONTROLLER_SILENCE_S - 20)
    assert world.started == [ARGV]
    world.wait(standby, 40)
    assert world.started == [ARGV, ARGV]


def test_agents_start_one_after_the_other(world):
    first, second = world.standby(slot=0), world.standby(slot=6)
    for _ in range(int(CONTROLLER_SILENCE_S // 10)):
        world.now += 10
        first.look()
        second.look()
    assert len(world.started) == 1


def test_a_stopped_deployment_and_an_agent_without_a_controller_start_none(world):
    silent = world.standby(argv=[])
    world.wait(silent, 3 * CONTROLLER_SILENCE_S)
    world.run.clear()
    world.wait(world.standby(), 3 * CONTROLLER_SILENCE_S)
    assert not world.started


def test_a_controller_has_the_environment_that_the_agent_had_before_it_chose_gpus(world, monkeypatch):
    environments = []

    def start(argv, env, **_):
        environments.append(env)
        return Process()

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    standby = Standby(world.run, ARGV, 0, clock=lambda: world.now)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    world.wait(standby, 2 * CONTROLLER_SILENCE_S)
    assert len(environments) == 1 and "CUDA_VISIBLE_DEVICES" not in environments[0]


def test_a_controller_that_does_not_end_is_killed_and_waited_for(world, monkeypatch):
    monkeypatch.setattr(standby, "_CHILD_ENDS_S", 0.01)
    program = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        world.process = deaf
        agents = world.standby()
        world.wait(agents, 2 * CONTROLLER_SILENCE_S)
        agents.close()
        assert deaf.returncode == -signal.SIGKILL
