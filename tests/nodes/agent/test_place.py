"""When the job of a worker ends, as its agent knows it."""

import pytest

from slurminfer.nodes.agent.hooks import Hooks
from slurminfer.nodes.agent.task import place_of

TOLD = Hooks(ends_at=lambda: 1_795_990_138.0)


@pytest.fixture
def job(monkeypatch):
    monkeypatch.delenv("SLURMINFER_LOCAL", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1796000000")
    return monkeypatch


def test_the_scheduler_knows_when_a_job_ends_that_was_shortened(job):
    assert place_of(3600, TOLD).ends_at == 1_795_990_138.0
    assert place_of(3600, Hooks()).ends_at == 1_796_000_000.0  # it does not answer


def test_only_the_head_asks(job):
    job.setenv("SLURM_PROCID", "1")
    assert place_of(3600, TOLD).ends_at == 1_796_000_000.0


def test_without_slurm_nobody_is_asked(job):
    job.setenv("SLURMINFER_LOCAL", "1")
    assert place_of(3600, TOLD).ends_at is None
