"""A deployment of a batch's own: one for all of its drivers, whoever dies, and none that is somebody else's."""

from contextlib import contextmanager

import pytest

from slurminfer.core.errors import RunActiveError, RunDirectoryError
from slurminfer.core.job import JobPhase
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.batch.endpoints import served as module
from slurminfer.jobs.batch.endpoints.served import OwnDeployments, served
from slurminfer.jobs.serve import deployment
from slurminfer.jobs.serve.deployment import submit

from ....support.launchers import ObedientJobTable

SPEC = parse_spec('name = "own"\n[model]\npath = "/m"\n[[pool]]\nname = "w"\nworkers = 2\n[router]\nport = 0\n')


ANOTHER = "1@1-00000000 on elsewhere"


class Jobs(ObedientJobTable):
    """Jobs that run at once, and end when they are cancelled."""

    def submit(self, request):
        job = super().submit(request)
        self.set(job, JobPhase.RUNNING)
        return job


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    table = Jobs()
    for place in ("slurminfer.jobs.serve.deployment", "slurminfer.jobs.serve.claim_holder"):
        monkeypatch.setattr(f"{place}.launcher_named", lambda name: table)
    monkeypatch.setattr(module, "start", submit)  # without looking for models
    monkeypatch.setattr(module, "wait_until_ready", lambda run: None)
    monkeypatch.setattr(module, "print_submitted", lambda run: None)
    return table


@pytest.fixture
def own(tmp_path):
    return OwnDeployments(tmp_path / "out.ledger/jobs/deployments")


@pytest.fixture
def another(monkeypatch):
    """For a while, this process is one on another machine."""

    @contextmanager
    def elsewhere():
        with monkeypatch.context() as patch:
            patch.setattr("slurminfer.jobs.serve.claim_holder.here", lambda: ANOTHER)
            yield

    return elsewhere


def living(jobs):
    return [job for job, status in jobs.jobs.items() if status.phase is JobPhase.RUNNING]


def test_it_is_stopped_at_the_end(jobs, own):
    with served(SPEC, jobs, own, stays=bool) as run:
        assert len(living(jobs)) == 3 and own.record(run) is not None
    assert living(jobs) == [] and run.read_deployment() is None and own.starts() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RunDirectoryError])
def test_it_is_stopped_however_the_driver_ends(jobs, own, error):
    with pytest.raises(error), served(SPEC, jobs, own, stays=bool):
        raise error
    assert living(jobs) == []


def test_a_driver_that_comes_back_goes_on_with_it(jobs, own):
    with served(SPEC, jobs, own, stays=lambda: True):
        pass
    before = living(jobs)
    with served(SPEC, jobs, own, stays=bool):
        assert living(jobs) == before, "no second one"
    assert living(jobs) == []


def test_so_does_one_after_a_driver_that_was_killed_elsewhere(jobs, own, another):
    with another(), served(SPEC, jobs, own, stays=lambda: True):  # killed: nothing is cleaned up
        pass
    before = living(jobs)
    with served(SPEC, jobs, own, stays=bool):
        assert living(jobs) == before
    assert living(jobs) == []


def test_of_two_drivers_that_come_at_once_one_submits_it(jobs, own, another, monkeypatch):
    def late(spec, launcher):  # another driver was faster, after this one has looked
        monkeypatch.setattr(module, "start", submit)
        with another():
            own.note(RunDirectory.named("own"))
            submit(spec, launcher)
        return submit(spec, launcher)

    monkeypatch.setattr(module, "start", late)
    with served(SPEC, jobs, own, stays=bool) as run:
        record = own.record(run)
        assert len(living(jobs)) == 3 and record is not None and record.claimed_by == ANOTHER


def test_what_was_half_submitted_when_its_driver_died_is_begun_anew(jobs, own, monkeypatch):
    def dies(request):
        if len(jobs.requests) == 2:
            raise MemoryError
        return Jobs.submit(jobs, request)

    abandoned = deployment._abandon
    monkeypatch.setattr(deployment, "_abandon", lambda *_: None)  # no time for it
    monkeypatch.setattr(jobs, "submit", dies)
    with pytest.raises(MemoryError), served(SPEC, jobs, own, stays=lambda: True):
        pass
    half = living(jobs)
    assert len(half) == 2
    monkeypatch.setattr(deployment, "_abandon", abandoned)
    monkeypatch.setattr(jobs, "submit", lambda request: Jobs.submit(jobs, request))
    monkeypatch.setattr("slurminfer.jobs.serve.claim_holder.is_submitting", lambda record: False)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.0)
    with served(SPEC, jobs, own, stays=bool) as run:
        assert not set(half) & set(living(jobs)) and len(living(jobs)) == 3
        record = run.read_deployment()
        assert record is not None and record.is_complete


def test_a_deployment_of_somebody_else_is_left_alone(jobs, own, another, tmp_path):
    with another():
        submit(SPEC, jobs)
    stranger, others = OwnDeployments(tmp_path / "another"), living(jobs)
    with pytest.raises(RunActiveError, match="deployment 'own' exists already"), served(SPEC, jobs, own, stays=bool):
        pass
    assert living(jobs) == others
    assert own.stop() == [] and stranger.stop() == [] and living(jobs) == others


def test_stopping_is_idempotent(jobs, own):
    with served(SPEC, jobs, own, stays=lambda: True):
        pass
    assert own.stop() == ["own"]
    assert own.stop() == []
