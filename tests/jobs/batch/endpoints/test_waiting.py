"""`batch --run` while the deployment's router is away."""

from types import SimpleNamespace

import pytest

from slurminfer.core.errors import BatchError, EngineError
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.batch.driver.address import Address
from slurminfer.jobs.batch.endpoints import deployment
from slurminfer.jobs.serve.status.state import DeploymentView

ADDRESS = Address("http://n1:1")


@pytest.fixture
def away(monkeypatch, tmp_path):
    """`locate(...)` finds these, one after the other; the deployment is in `state` meanwhile."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(deployment, "time", clock)

    def wait(state: str, *found: Address | None, reason: str = "") -> Address:
        view = DeploymentView(name="demo", state=state, reason=reason)
        monkeypatch.setattr(deployment, "look", lambda run, endings: view)
        rows = iter(found)
        return deployment._located(RunDirectory(tmp_path / "demo"), lambda: next(rows, None))

    return wait


def test_it_waits_until_the_router_is_back_and_says_so_once(away, capsys):
    assert away("pending", None, None, ADDRESS, reason="Priority") == ADDRESS
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("waiting for its router, for up to 600 s") == 1
    assert "deployment 'demo' has no endpoint now (pending: Priority)" in said


def test_it_gives_up_after_a_bound(away):
    with pytest.raises(BatchError, match=r"has no endpoint now \(starting\), and had none for 600 s; see 'slurminfer"):
        away("starting")


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_it_does_not_wait_for_what_never_comes(away, state):
    with pytest.raises(EngineError, match=rf"deployment 'demo' (was )?{state}"):
        away(state)


def test_a_router_that_is_there_is_used_at_once(away, capsys):
    assert away("ready", ADDRESS) == ADDRESS
    assert capsys.readouterr().err == ""
