"""Who holds a deployment's name, where processes interleave as badly as they can."""

import pytest

from slurminfer.core import claims
from slurminfer.core.claims import Claims
from slurminfer.core.errors import RunStoppedError
from slurminfer.core.records import DeploymentRecord, JobRecord, write_record


def claim_of(who: str, *jobs: str) -> DeploymentRecord:
    known = tuple(JobRecord(id=job, role="router") for job in jobs)
    return DeploymentRecord(launcher="local", claimed_by=f"{who} on here", claimed_at=1.0, jobs=known)


DEAD, ONE, OTHER = claim_of("dead"), claim_of("one"), claim_of("other")


@pytest.fixture
def held(tmp_path) -> Claims:
    """A claim whose holder has died."""
    found = Claims(tmp_path / "deployment.json")
    assert found.take(DEAD)
    return found


def living(*records):
    return lambda record: record in records


def test_of_two_that_judged_the_same_claim_dead_one_wins(held):
    assert held.take_over(DEAD, ONE, living(ONE, OTHER))
    assert not held.take_over(DEAD, OTHER, living(ONE, OTHER))
    assert held.is_held(ONE)


def test_the_second_loses_while_the_first_is_still_replacing(held, monkeypatch):
    results = []
    write = write_record

    def slowly(path, record):
        results.append(held.take_over(DEAD, OTHER, living(ONE, OTHER)))
        write(path, record)

    monkeypatch.setattr(claims, "write_record", slowly)
    assert held.take_over(DEAD, ONE, living(ONE, OTHER))
    assert results == [False]
    assert held.is_held(ONE)


def test_one_that_died_while_it_replaced_a_claim_does_not_block_the_next(held, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(claims, "write_record", die)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # killed: nothing is tidied up
        held.take_over(DEAD, ONE, living(ONE))
    assert held.take_over(DEAD, OTHER, living(OTHER))
    assert held.is_held(OTHER)
    assert not held.take_over(DEAD, claim_of("third"), living(OTHER)), "the claim that it judged is no longer there"
    assert held.is_held(OTHER)


def test_a_claim_that_was_stopped_meanwhile_is_free(held):
    held.path.unlink()
    assert held.take_over(DEAD, ONE, living(ONE))
    assert held.is_held(ONE)


def test_stop_wins_over_a_serve_that_submits(held):
    held.take_over(DEAD, ONE, living(ONE))
    held.update(claim_of("one", "1"))
    held.announce_stop(ONE)
    with pytest.raises(RunStoppedError):
        held.require(ONE)
    held.path.unlink()
    with pytest.raises(RunStoppedError):
        held.update(claim_of("one", "1", "2"))
    assert not held.path.exists(), "it is not made anew"


def test_stop_wins_between_the_look_and_the_write(held, monkeypatch):
    held.take_over(DEAD, ONE, living(ONE))
    write = write_record

    def stopped_just_before(path, record):
        held.announce_stop(ONE)
        path.unlink()
        write(path, record)

    monkeypatch.setattr(claims, "write_record", stopped_just_before)
    with pytest.raises(RunStoppedError):
        held.update(claim_of("one", "1"))


def test_the_stop_of_an_earlier_claim_does_not_concern_the_next(held):
    held.announce_stop(DEAD)
    held.path.unlink()
    assert held.take(ONE)
    held.update(claim_of("one", "1"))
    assert [path.name for path in held.path.parent.iterdir()] == ["deployment.json"]
