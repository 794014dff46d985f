"""Which rank failed first, and whose reason counts, by a clock that the test sets."""

from slurminfer.nodes.native.model.parallel.rendezvous.failures import Failures
from slurminfer.nodes.native.model.parallel.rendezvous.messages import Gone

SILENT, KILLED, OWN = (Gone(1, "n1", reason) for reason in ("", "killed by SIGKILL", "no memory for it"))


def test_there_is_none_at_first():
    assert not Failures() and Failures().first(0) is None


def test_one_without_a_reason_waits_a_second_for_it():
    failures = Failures()
    failures.record(SILENT, 10)
    assert failures and failures.first(10.9) is None
    assert failures.first(11) == SILENT


def test_a_reason_that_comes_meanwhile_is_given_at_once():
    failures = Failures()
    failures.record(SILENT, 10)
    failures.record(KILLED, 10.5)
    assert failures.first(10.5) == KILLED


def test_the_first_reason_stays_but_for_the_ranks_own():
    failures = Failures()
    for gone in (KILLED, SILENT, Gone(1, "n1", "it has been silent for 5 s")):
        failures.record(gone, 10)
    assert failures.first(10) == KILLED
    failures.record(OWN, 10, is_own=True)
    assert failures.first(10) == OWN


def test_the_rank_that_was_missed_first_is_the_one_even_if_another_gives_a_reason():
    failures = Failures()
    failures.record(SILENT, 10)
    failures.record(Gone(2, "n2", "connection reset by rank 1"), 10.1)
    assert failures.first(10.2) is None
    assert failures.first(11) == SILENT
