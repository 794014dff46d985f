"""An input that has changed: rows keep their results, wherever they are now."""

import os
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import BatchError

from .conftest import answer, failure, texts


def key(number):
    """The last byte of some is zero, which numpy takes off the end of bytes."""
    return f"{number:030x}{number % 2:02x}"


def results(ledger, rows):
    """What the rows have, by key."""
    found: Counter[tuple[str, str]] = Counter()
    for number, shard in enumerate(rows):
        for record in ledger.records(number):
            found[shard[record.index], texts([record])[0]] += 1
    return found


def test_a_file_that_was_only_touched_keeps_all(ledgers):
    rows = [[key(1), key(2)], [key(1), key(3)]]
    with ledgers.changed(rows, 1) as ledger:
        for number, shard in enumerate(rows):
            claimed = ledger.claim()
            for index, of in enumerate(shard):
                ledger.append(claimed, answer(index, f"{number}{index}", of))
            ledger.seal(claimed) if number else ledger.release(claimed)
        before = ledger.counts()
    again = ledgers.changed(rows, 2)
    assert [texts(again.records(number)) for number in range(2)] == [["00", "01"], ["10", "11"]]
    assert again.counts() == before and again.claim() is None
    assert [path.name for path in ledgers.path.glob("[0-9]*")] != ["0"]
    assert again.plan.files[0].changed_ns == 2


ROWS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_results_go_to_equal_rows_each_once(ledgers, before, after, random):
    shutil.rmtree(ledgers.path, ignore_errors=True)
    before, after = ([[key(number) for number in shard] for shard in rows] for rows in (before, after))
    with ledgers.changed(before, 1) as ledger:
        for number, shard in enumerate(before):
            claimed = ledger.claim()
            chosen = [index for index in range(len(shard)) if random.random() < 0.7]
            for index in chosen:
                ledger.append(claimed, answer(index, f"{number} {index}", shard[index]))
            if len(chosen) == len(shard) and random.random() < 0.5:
                ledger.seal(claimed)
        had = results(ledger, before)
    ledger = ledgers.changed(after, 2)
    has = results(ledger, after)
    assert has <= had and set(has.values()) <= {1}
    of_key = Counter(of for of, _ in had.elements())
    wanted = Counter(of for shard in after for of in shard)
    assert Counter(of for of, _ in has.elements()) == of_key & wanted
    full = [n for n, shard in enumerate(after) if len(list(ledger.records(n))) == len(shard)]
    assert [n for n in range(len(after)) if ledger.is_sealed(n)] == full
    ledger.__exit__()


def test_a_row_that_two_drivers_have_answered_has_one_result(ledgers):
    rows = [[key(1), key(2)]]
    zombie, other = ledgers.changed(rows, 1), ledgers.changed(rows, 1)
    zombie.append(zombie.claim(), answer(0, "zombie", key(1)))
    ledgers.silence(zombie, other)
    other.append(other.claim(), answer(0, "other", key(1)))
    zombie.__exit__()
    other.__exit__()
    again = ledgers.changed([[key(1), key(1)]], 2)
    assert len(list(again.records(0))) == 1


def test_failed_and_blank_rows_are_looked_at_again(ledgers):
    with ledgers.changed([[key(1), key(2)]], 1) as ledger:
        shard = ledger.claim()
        ledger.append(shard, failure(0))
        ledger.append(shard, answer(1, "kept", key(2)))
        ledger.seal(shard)
    again = ledgers.changed([[key(2), "", key(1)]], 2)
    assert again.settled(again.claim()) == {0} and texts(again.records(0)) == ["kept"]


def test_nothing_to_carry_over_is_no_matter(ledgers):
    ledgers.changed([[key(1)]], 1).__exit__()
    assert ledgers.changed([[key(1)]], 2).counts().answered == 0


def test_an_input_does_not_change_under_drivers_at_work(ledgers):
    one = ledgers.changed([[key(1)]], 1)
    with pytest.raises(BatchError, match="other drivers are still at work on what it was"):
        ledgers.changed([[key(2)]], 2)
    one.__exit__()
    two = ledgers.changed([[key(2)]], 2)
    assert two.plan.files[0].changed_ns == 2
    with pytest.raises(BatchError, match="another driver has begun anew with a changed input"):
        one.sync()


def test_rows_that_were_missing_for_a_while_keep_their_results(ledgers):
    """As where an older snapshot of the input was put in place by mistake."""
    with ledgers.changed([[key(1), key(2)]], 1) as ledger:
        shard = ledger.claim()
        for index in range(2):
            ledger.append(shard, answer(index, f"{index}", key(index + 1)))
        ledger.seal(shard)
    with ledgers.changed([[key(1), key(3)]], 2) as ledger:
        ledger.append(ledger.claim(), answer(1, "third", key(3)))
    again = ledgers.changed([[key(1), key(2), key(3), key(1), key(2)]], 3)
    assert again.settled(again.claim()) == {0, 1, 2} and texts(again.records(0)) == ["0", "1", "third"]


def test_without_keys_nothing_is_carried_over(ledgers):
    ledgers.changed([[key(1)]], 1).__exit__()
    plan = ledgers.changed([[key(1)]], 1).plan
    with pytest.raises(BatchError, match="the input has changed"):
        ledgers.enter(plan, ledgers.open(1).parameters, files=lambda: ())


def test_carrying_over_may_break_off_anywhere(ledgers, monkeypatch):
    rows = [[key(1)], [key(2), key(3)]]
    with ledgers.changed(rows, 1) as ledger:
        for shard in rows:
            claimed = ledger.claim()
            ledger.append(claimed, answer(0, shard[0], shard[0]))
    for step in range(30):
        calls = iter(range(step + 1))

        def fsync(descriptor, calls=calls):
            if next(calls, None) is None:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fsync)
            try:
                ledger = ledgers.changed(rows, 2)
            except BatchError as error:
                assert "No space left on device; nothing is lost" in str(error)
                continue
        break
    assert step > 4
    assert [texts(ledger.records(number)) for number in range(2)] == [[key(1)], [key(2)]]
    assert not list(ledgers.path.glob(".*"))
