"""What a model thinks, told apart from what it says."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.nodes.native.api.reasoning.splitter import ThinkingSplitter
from slurminfer.nodes.native.api.reasoning.tags import THINKING, Tags, begins_within, tags_of

THINK = THINKING[-1]
MAGISTRAL = next(tags for tags in THINKING if tags.begin == "[THINK]")


def split(pieces: list[str], tags: Tags = THINK, **options: Any) -> tuple[str, str]:
    """All that was thought, and all that was said."""
    splitter = ThinkingSplitter(tags, **{"within": False, **options})
    parts = [*map(splitter.push, pieces), splitter.flush()]
    return "".join(thought for thought, _ in parts), "".join(said for _, said in parts)


ANSWERS = [
    (False, "<think>\nHm, 2 < 3.\n</think>\n\nYes.", "Hm, 2 < 3.", "Yes."),
    (False, "\n<think>Hm</think>Yes. ", "Hm", "Yes. "),
    (True, "Hm\n\nwell</think>\nYes.", "Hm\n\nwell", "Yes."),
    (True, "\n<think>\nHm</think>Yes.", "Hm", "Yes."),
    (True, "Hm, cut </thi", "Hm, cut </thi", ""),
    (True, "</think>\n\nYes.", "", "Yes."),
    (False, "<think>\n\n</think>\n\nYes.", "", "Yes."),
    (False, "  Yes, <think> is a tag, </think> too.", "", "  Yes, <think> is a tag, </think> too."),
    (False, "<thin", "", "<thin"),
    (True, "", "", ""),
    (False, "<think>a</think>b</think>c<think>d", "a", "b</think>c<think>d"),
]


@pytest.mark.parametrize(("within", "answer", "thought", "said"), ANSWERS)
@settings(max_examples=40)
@given(data=st.data())
def test_the_same_in_any_pieces(within, answer, thought, said, data):
    places = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=20)))
    pieces = [answer[start:end] for start, end in zip([0, *places], [*places, len(answer)], strict=True)]
    assert split(pieces, within=within) == (thought, said)
    assert split(pieces, within=within, at_once=False) == (thought, said)


def test_thoughts_come_as_they_are_generated_but_for_what_may_be_the_end():
    splitter = ThinkingSplitter(THINK, within=True)
    pieces = ["\n", "Hm", ",", " <", "b>", "\n", "</th", "ink>", "\n\n", "Yes", " "]
    assert [splitter.push(piece) for piece in pieces] == [
        ("", ""), ("Hm", ""), (",", ""), ("", ""), (" <b>", ""), ("", ""), ("", ""), ("", ""), ("", ""), ("", "Yes"),
        ("", " "),
    ]  # fmt: skip


def test_thoughts_in_one_piece():
    splitter = ThinkingSplitter(THINK, within=True, at_once=False)
    assert [splitter.push(piece) for piece in ["Hm", ", well", "</think>", "Yes"]] == [
        ("", ""), ("", ""), ("Hm, well", ""), ("", "Yes")
    ]  # fmt: skip


def test_other_tags():
    assert split(["[THINK]Hm[/THINK]Yes"], MAGISTRAL) == ("Hm", "Yes")


def test_which_tags_a_model_has():
    assert tags_of("{{ content.split('</think>')[-1] }}", []) == THINK
    assert tags_of("[THINK] ... [/THINK]", []) == MAGISTRAL
    assert tags_of("{{ messages }}", ["<think>", "</think>"]) == THINK
    assert tags_of("{{ messages }}", ["<think>"]) is None
    assert tags_of("{{ '<|assistant|><think>' }}{{ '<|end|>' }}", []) == THINK, "others end messages as gpt-oss does"
    assert tags_of("<|end|>", []) is None


@pytest.mark.parametrize(
    ("prompt", "continued", "within"),
    [
        ("<|assistant|>\n<think>\n", "", True),
        ("<|assistant|>\n<think>\n\n</think>\n\n", "", False),
        ("What is <think>?<|assistant|>\n", "", False),
        ("<|assistant|><think>Hm", "<think>Hm", True),
        ("<|assistant|><think>Hm</think>Yes", "<think>Hm</think>Yes", False),
    ],
)
def test_whether_an_answer_begins_within_the_tags(prompt, continued, within):
    assert begins_within(THINK, prompt, continued) == within
