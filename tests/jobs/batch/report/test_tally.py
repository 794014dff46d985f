"""Counting: what this driver does, what others do, and what was done before."""

from slurminfer.jobs.batch.report.tally import OTHER_REASONS, Tally


def test_rows_of_other_drivers_count_and_never_fall():
    tally = Tally(100, answered=10, failed=2, monotonic=lambda: 0.0)
    for _ in range(5):
        tally.answer(10, 4, 3, began=None)
    tally.fail("HTTP 400: too long")
    state = tally.state()
    assert (state.answered, state.failed, state.skipped, state.own, state.left) == (15, 3, 10, 6, 82)
    tally.hear(answered=35, failed=4, drivers=3)
    assert (tally.state().answered, tally.state().failed, tally.state().drivers) == (35, 4, 3)
    tally.answer(10, 4, 3, began=None)
    tally.hear(answered=20, failed=3, drivers=1)  # an older snapshot
    assert (tally.state().answered, tally.state().failed) == (36, 4)
    assert (tally.state().prompt_tokens, tally.state().cached_tokens, tally.state().completion_tokens) == (60, 24, 18)


def test_blank_lines_are_no_rows():
    tally = Tally(3)
    tally.blank()
    tally.answer(1, 0, 1, began=None)
    assert tally.state().total == 2 and tally.state().left == 1


def test_timings_are_those_of_the_first_rows():
    now = [0.0]
    tally = Tally(5000, monotonic=lambda: now[0])
    for row in range(5000):
        began, now[0] = tally.now, row + 1.0
        tally.answer(7, 2, 3, began=began)
    assert len(tally.timings) == 4096
    assert (tally.timings[1].began, tally.timings[1].ended, tally.timings[1].uncached_tokens) == (1.0, 2.0, 5)


def test_rows_that_cannot_be_read_have_one_reason_for_each_file():
    tally = Tally(10)
    tally.fail("line 2 of a.jsonl: not JSON")
    tally.fail("row 7 of a.jsonl: not JSON")
    tally.fail("line 7 of b.jsonl: not JSON")
    assert tally.state().reasons == {"a.jsonl: not JSON": 2, "b.jsonl: not JSON": 1}


def test_reasons_are_counted_and_their_number_is_bounded():
    tally = Tally(1000)
    for row in range(300):
        tally.fail(f"HTTP 400: row {row}\n is too long")
    tally.fail("HTTP 400: row 7 is too long")
    reasons = tally.state().reasons
    assert reasons[OTHER_REASONS] == 200 and reasons["HTTP 400: row 7 is too long"] == 2
    assert sum(reasons.values()) == 301 and next(iter(reasons)) == OTHER_REASONS
