"""Which kept responses go, by their ids alone."""

import random

from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.responses.ids import new_id, required
from slurminfer.router.responses.lineage import Amount, KeptFile, fair_share, needless, surplus


def made(*befores, size=10, tenant="one", start=1000.0):
    """Files of responses, a second apart; of each, the number of the one before, or None."""
    files: list[KeptFile] = []
    for number, before in enumerate(befores):
        previous = None if before is None else files[before].id
        files.append(KeptFile(required(new_id(tenant, start + number, previous)), size, is_removed=False))
    return files


def test_an_id_tells_its_conversation_and_the_turn_before():
    first, second, fork, other = (file.id for file in made(None, 0, 0, None))
    assert first.conversation == second.conversation == fork.conversation != other.conversation
    assert (first.after, second.after, fork.after) == ("", first.turn, first.turn)
    assert len({first.turn, second.turn, fork.turn, other.turn}) == 4
    assert sorted([other, fork, second, first]) == [first, second, fork, other]
    assert len(first.text) == len("resp_") + 48


def test_a_turn_stays_for_as_long_as_one_after_it_is_needed():
    files = made(None, 0, 1, 1, None)
    for over, gone in [
        ({0}, set()),
        ({0, 1}, set()),
        ({0, 1, 2}, {2}),
        ({0, 1, 3}, {3}),
        ({0, 1, 2, 3}, {0, 1, 2, 3}),
        ({4}, {4}),
        (set(), set()),
    ]:
        ids = {files[number].id for number in over}
        found = needless(files, lambda file: file.id in ids)  # noqa: B023 (called at once)
        assert {files.index(file) for file in found} == gone
        assert found == sorted(found, key=lambda file: file.id, reverse=True), (
            "nobody sees one whose turn before is gone"
        )


def test_conversations_go_as_a_whole_the_one_that_is_idle_longest_first():
    long, other = made(None, 0, 1, 2), made(None, 0, start=1002.5)  # the first one is newer by half a second
    files = [*long[:3], *other, long[3]]
    long[3] = files[-1] = KeptFile(required(new_id("one", 2000.0, long[2].id)), 10, is_removed=False)
    assert set(surplus(files, Amount(5, 1000))) == set(other)
    assert surplus(files, Amount(6, 1000)) == []
    assert set(surplus(files, Amount(100, 59))) == set(other)


def test_of_one_conversation_the_oldest_branches_go():
    """Many questions about one text: the text stays, and the newest answers."""
    files = made(None, *[0] * 20)
    gone = surplus(files, Amount(10, 1000))
    assert gone == files[1:13]
    branches = made(None, 0, 1, 0, 3)  # two branches of two turns
    assert surplus(branches, Amount(4, 1000)) == [branches[2], branches[1]]


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(1, 300))
def test_shares_are_fair(amounts, most):
    share = fair_share(amounts, most)
    left = [min(amount, share) for amount in amounts]
    assert sum(left) <= most
    if sum(amounts) <= most:
        assert left == amounts
    else:
        assert sum(left) > most - len(amounts), "no room is wasted"


def test_any_forest_keeps_what_is_needed():
    """Against a slow and simple way to say it."""
    rng = random.Random(5)
    for _ in range(200):
        befores = [rng.choice([None, *range(n)]) for n in range(rng.randrange(1, 12))]
        files = made(*befores)
        over = {n for n in range(len(files)) if rng.random() < 0.6}

        def is_needed(number, befores=befores, over=over):
            return number not in over or any(is_needed(n) for n, before in enumerate(befores) if before == number)

        ids = {files[number].id for number in over}
        gone = {files.index(file) for file in needless(files, lambda file: file.id in ids)}  # noqa: B023
        assert gone == {n for n in range(len(files)) if not is_needed(n)}


def test_ids_that_refer_to_themselves_end_nothing():
    id = required("resp_" + "0" * 12 + "a" * 8 + "b" * 8 + "c" * 8 + "c" * 12)
    file = KeptFile(id, 10, is_removed=False)
    assert needless([file], lambda file: True) == [file]
    assert needless([file], lambda file: False) == []
    surplus([file] * 3, Amount(1, 1))
