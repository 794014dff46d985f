"""What of an answer is told as text: with or without its stop string and special tokens."""

import pytest

from slurminfer.nodes.native.api.answers.generation import Choice, TextOptions
from slurminfer.nodes.native.api.answers.stop_strings import StopStrings
from slurminfer.nodes.native.engine.request import FinishReason, Request, SamplingParams
from slurminfer.nodes.native.tokenizer import Tokenizer

END = 1


@pytest.fixture
def tokenizer(tmp_path, make_tokenizer) -> Tokenizer:
    make_tokenizer(tmp_path)
    return Tokenizer(tmp_path)


def _choice(tokenizer: Tokenizer, options: TextOptions) -> Choice:
    return Choice(
        0, Request("r", [5], SamplingParams(max_tokens=9, stop_token_ids=frozenset([END]))), tokenizer, options
    )


@pytest.mark.parametrize(("keep", "told"), [(False, "ab"), (True, "abcd")])
def test_a_stop_string_is_left_out_or_kept(keep, told):
    stops = StopStrings(["cd", "zz"], keep=keep)
    text, stopped = "", False
    for piece in ("a", "bc", "de"):
        more, stopped = stops.push(piece)
        text += more
    assert (text, stopped) == (told, True)


@pytest.mark.parametrize(("shows", "told"), [(False, "ab"), (True, "a<|user|>b")])
def test_special_tokens_are_left_out_or_shown(tokenizer, shows, told):
    choice = _choice(tokenizer, TextOptions(shows_special_tokens=shows))
    ids = [tokenizer.encode(text, add_special_tokens=False)[0] for text in ("a", "<|user|>", "b")]
    assert "".join(choice.push(id, None, None).text for id in ids) == told


@pytest.mark.parametrize(
    ("keeps", "shows", "told"),
    [(False, False, "a"), (True, False, "a"), (False, True, "a"), (True, True, "a<|end|>")],
)
def test_an_end_token_is_told_where_stops_are_kept_and_special_tokens_shown(tokenizer, keeps, shows, told):
    choice = _choice(tokenizer, TextOptions(keeps_stop=keeps, shows_special_tokens=shows))
    [a] = tokenizer.encode("a", add_special_tokens=False)
    assert choice.push(a, None, None).text + choice.push(END, None, FinishReason.STOP).text == told


def test_a_stop_string_that_is_a_special_token_is_kept_where_it_is_shown(tokenizer):
    choice = _choice(tokenizer, TextOptions(stops=["<|user|>"], keeps_stop=True, shows_special_tokens=True))
    a, user = (tokenizer.encode(text, add_special_tokens=False)[0] for text in ("a", "<|user|>"))
    assert choice.push(a, None, None).text == "a"
    last = choice.push(user, None, None)
    assert (last.text, last.finish) == ("<|user|>", FinishReason.STOP)
