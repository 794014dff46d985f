"""Decode tokens are attended to in few groups of about one length."""

from hypothesis import given
from hypothesis import strategies as st

from slurminfer.nodes.native.model.batch import group_lengths

LENGTHS = st.lists(st.integers(1, 40_000), max_size=80).map(lambda lengths: sorted(lengths, reverse=True))


@given(LENGTHS)
def test_groups_are_every_sequence_once_in_order(lengths):
    groups = group_lengths(lengths, 16384)
    assert [i for start, stop in groups for i in range(start, stop)] == list(range(len(lengths)))
    assert all(start < stop for start, stop in groups)


@given(LENGTHS, st.sampled_from([4096, 16384]))
def test_padding_and_the_gathered_copy_stay_small(lengths, most):
    for start, stop in group_lengths(lengths, most):
        assert sum(lengths[start] - length for length in lengths[start:stop]) <= 256
        assert stop - start == 1 or lengths[start] * (stop - start) <= most


def test_sequences_of_one_length_are_one_group():
    assert group_lengths([100] * 64, 16384) == [(0, 64)]


def test_a_long_sequence_does_not_pad_the_short_ones():
    assert group_lengths([8000, 120, 110, 100], 16384) == [(0, 1), (1, 4)]
