"""Patterns that the library would not hold a string to are found, and in time proportional to the pattern."""

import pytest

from slurminfer.nodes.native.grammar.patterns import fault


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ('[^"]', '[^"] leaves out'),
        ('a[^x"]b', '[^x"] leaves out'),
        (r"[^\\a]", "leaves out"),
        ('[^]"]', "leaves out"),  # a bracket that comes first is one of the characters
        ("[\x01]", "control characters"),
        (r"\[\x01", "control characters"),
        (r"\cA", "control characters"),
    ],
)
def test_faults(pattern, said):
    found = fault(pattern)
    assert found is not None and said in found


@pytest.mark.parametrize("pattern", ["", "[^a]", r'\[^"]', r'[^"\x00-\x1f]', r"[\x00-\x7f]", "[", "[\\", '[]^"]', "\\"])
def test_no_faults(pattern):
    assert fault(pattern) is None


@pytest.mark.parametrize("pattern", ["[" * 1_000_000, "[" * 1_000_000 + "\\", r"\[" * 500_000, "[a" * 500_000])
def test_brackets_that_never_close_take_no_time(pattern):
    assert fault(pattern) is None
