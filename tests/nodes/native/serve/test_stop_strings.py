"""How much of a text may become a stop string, in time proportional to the text."""

from hypothesis import given
from hypothesis import strategies as st

from slurminfer.nodes.native.api.answers.stop_strings import Pattern, StopStrings

few = st.text("ab", max_size=12)


@given(stop=st.text("ab", min_size=1, max_size=8), pieces=st.lists(few, max_size=6))
def test_the_longest_beginning_that_the_text_ends_with(stop, pieces):
    pattern, length, text = Pattern(stop), 0, ""
    for piece in pieces:
        text += piece
        if stop in text:
            return
        length = pattern.advance(length, piece)
        assert length == max(n for n in range(len(stop)) if text.endswith(stop[:n]))


@given(stops=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3), text=st.text("abc", max_size=30))
def test_a_text_is_told_up_to_the_first_stop_string(stops, text):
    found = StopStrings(stops)
    told, stopped = "", False
    for character in text:
        more, stopped = found.push(character)
        told += more
        if stopped:
            break
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if not stopped:
        assert (told + found.flush(), ends) == (text, [])
        return
    begin = min(ends[0] - len(stop) for stop in stops if text[: ends[0]].endswith(stop))
    assert told == text[:begin]


class Counted(Pattern):
    """Counts its steps."""

    steps = 0

    def _next(self, length: int, character: str) -> int:
        self.steps += 1
        return super()._next(length, character)


def test_no_text_makes_it_take_long():
    for stop in ("a" * 1023 + "b", ("a" * 31 + "b") * 32, "b" + "a" * 1023):
        pattern, length = Counted(stop), 0
        for _ in range(10):
            length = pattern.advance(length, ("a" * 31 + "c") * 32)
        assert pattern.steps <= 10 * 1024 + 1024  # each character once, and the stop string's own


def test_choices_share_what_is_known_of_a_stop_string():
    pattern = Counted("aab")
    for _ in range(3):
        assert StopStrings(["aab"], patterns=[pattern]).push("aaa") == ("a", False)
    assert pattern.steps == 3 * 3 + 1
