"""Names of models with wildcards."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.core.spec.patterns import fits

FEW = st.text(alphabet="ab.?[*", max_size=8)


@given(pattern=FEW, name=FEW)
def test_a_star_is_any_text_and_all_else_is_itself(pattern, name):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name)
    assert fits(pattern, name) == (expected is not None)


@pytest.mark.parametrize(
    ("pattern", "name", "fit"),
    [
        ("claude-*", "claude-sonnet-4-5-20250929", True),
        ("claude-*", "claude-", True),
        ("claude-*", "anthropic/claude-sonnet", False),
        ("*/claude-*", "anthropic/claude-sonnet", True),
        ("ab*ba", "aba", False),
        ("*", "", True),
        ("gpt-4?", "gpt-4o", False),
        ("Claude-*", "claude-a", False),
    ],
)
def test_examples(pattern, name, fit):
    assert fits(pattern, name) is fit


def test_a_long_name_takes_no_time():
    assert not fits("*a" * 50 + "*b", "a" * 2_000_000 + "c")
