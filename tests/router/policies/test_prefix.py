"""Hashes of a prompt's beginning."""

from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.policies.prefix import block_bytes, block_hashes, leading_tokens


@given(st.binary(max_size=40_000), st.binary(max_size=2000), st.binary(max_size=2000))
def test_equal_beginnings_have_equal_blocks_and_others_do_not(common, one, other):
    ours, theirs = block_hashes(common + one), block_hashes(common + other)
    equal = sum(a == b for a, b in zip(ours, theirs, strict=False))
    assert ours[:equal] == theirs[:equal], "no equal block after an unequal one"
    assert equal >= len(block_hashes(common))
    assert sum(map(block_bytes, ours)) <= len(common + one)


def test_a_block_stands_for_all_before_it():
    a, b = block_hashes(b"a" * 256 + b"x" * 256), block_hashes(b"b" * 256 + b"x" * 256)
    assert len(a) == len(b) == 2 and a[1] != b[1]


def test_the_longest_body_has_few_blocks_and_short_ones_exact_ones():
    assert len(block_hashes(bytes(64 << 20))) < 1000
    assert [len(block_hashes(bytes(size))) for size in (0, 255, 256, 4096)] == [0, 0, 1, 16]


def test_hashes_are_positive_int64_and_say_their_size():
    blocks = block_hashes(bytes(range(256)) * 256)
    assert all(0 < block < 2**63 for block in blocks)
    assert [block_bytes(block) for block in blocks] == [256] * 64 + [512] * 64 + [1024] * 16


def test_tokens_of_blocks_follow_the_bytes_of_a_token():
    assert leading_tokens(4.0)[:3] == (0, 64, 128)
    assert leading_tokens(2.0)[65] - leading_tokens(2.0)[64] == 256
