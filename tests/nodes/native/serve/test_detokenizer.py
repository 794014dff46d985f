"""Text comes out as the tokens come in: whole characters only, and never a part of a stop string."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from slurminfer.core.errors import CorruptModelError
from slurminfer.nodes.native.api.answers.detokenizer import Detokenizer, complete_text
from slurminfer.nodes.native.api.answers.generation import Choice, TextOptions
from slurminfer.nodes.native.api.answers.stop_strings import StopStrings
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.tokenizer import Tokenizer

MULTILINGUAL = "Héllo wörld 👩‍👩‍👧 你好，世界 🎉🎉 مرحبا ok"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., None]) -> Tokenizer:
    directory = tmp_path_factory.mktemp("byte_level")
    make_tokenizer(directory)
    return Tokenizer(directory)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As Llama 2's: spaces are a letter of their own, unknown characters are written in bytes."""
    directory = tmp_path_factory.mktemp("sentencepiece")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁Helowrd"]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({piece: id for id, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return Tokenizer(directory)


def _pieces(tokenizer: Tokenizer, prompt: str, text: str) -> list[str]:
    """What each token of `text`, which continues `prompt`, adds."""
    before = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + text, add_special_tokens=False)
    assert whole[: len(before)] == before
    detokenizer = Detokenizer(tokenizer, before)
    return [*map(detokenizer.push, whole[len(before) :]), detokenizer.flush()]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("prompt", ["", "Say", "你好"])
def test_characters_that_take_several_tokens_come_whole(kind, prompt, request):
    pieces = _pieces(request.getfixturevalue(kind), prompt, MULTILINGUAL)
    assert "".join(pieces) == MULTILINGUAL
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_the_space_that_begins_a_continuation_is_kept(kind, request):
    assert "".join(_pieces(request.getfixturevalue(kind), "Hello", " world")) == " world"


@settings(max_examples=40)
@given(text=st.text(max_size=30))
def test_any_text_comes_out_as_it_went_in(byte_level, text):
    assert "".join(_pieces(byte_level, "", text)).rstrip("\ufffd") == text.rstrip("\ufffd")


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_a_character_that_is_never_finished_is_left_out(kind, request):
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode("Hello🎉", add_special_tokens=False)
    detokenizer = Detokenizer(tokenizer, [])
    assert "".join([*map(detokenizer.push, ids[:-1]), detokenizer.flush()]) == "Hello"


def _answer(tokenizer: Tokenizer, prompt: list[int], answer: list[int]) -> str:
    detokenizer = Detokenizer(tokenizer, prompt)
    return "".join([*map(detokenizer.push, answer), detokenizer.flush()])


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("prompt", ["", "Hello", "曌曌", "Hello 曌🎉曌", "🎉🎉🎉🎉"])
@pytest.mark.parametrize("answer", ["曌", "Hello", " world 🎉", "\ufffd", "o\ufffd曌\ufffd", "🎉\ufffd"])
def test_an_answer_is_what_decoding_it_with_the_prompt_adds(kind, prompt, answer, request):
    tokenizer = request.getfixturevalue(kind)
    before = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    assert whole[: len(before)] == before
    added = tokenizer.decode(whole)[len(tokenizer.decode(before)) :]
    assert _answer(tokenizer, before, whole[len(before) :]) == added
    assert added.strip() == answer.strip()


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("inside", [1, 2, 3])
def test_a_character_that_begins_in_the_prompt_and_ends_in_the_answer_is_the_answers(kind, inside, request):
    tokenizer = request.getfixturevalue(kind)
    ids = [max(id for id in range(300) if tokenizer.token_bytes(id) == bytes([byte])) for byte in "o🎉H".encode()]
    assert _answer(tokenizer, ids[: 1 + inside], ids[1 + inside :]) == "🎉H"
    assert _answer(tokenizer, ids[: 1 + inside], ids[5:]) == "H"  # never finished: the prompt's U+FFFD is not repeated


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_special_tokens_in_prompt_and_answer_leave_spaces_alone(kind, request):
    tokenizer = request.getfixturevalue(kind)
    special = next(id for id in range(300) if not tokenizer.is_visible(id))
    before = tokenizer.encode("Hello", add_special_tokens=False)
    word = tokenizer.encode("Hello world", add_special_tokens=False)[len(before) :]
    assert _answer(tokenizer, [*before, *[special] * 9], [*word, special, *word]) == " world world"


def test_a_character_told_stays_when_the_byte_behind_it_is_no_text(sentencepiece):
    ids = [*sentencepiece.encode("o曌", add_special_tokens=False), 3 + 0xFF]
    last = sentencepiece.encode("Hello", add_special_tokens=False)[1:]
    assert _answer(sentencepiece, [], [*ids, *last]) == "o曌\ufffdHello"


@pytest.mark.parametrize("byte", [0xFF, 0xF0, 0xC3, 0x80])  # the second and third begin characters again and again
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_bytes_that_are_no_text_are_not_held_forever(kind, byte, request):
    tokenizer = request.getfixturevalue(kind)
    broken = max(id for id in range(300) if tokenizer.token_bytes(id) == bytes([byte]))
    detokenizer = Detokenizer(tokenizer, [])
    pieces = [detokenizer.push(broken) for _ in range(100)]
    assert sum(map(len, pieces)) > 80
    last = tokenizer.encode("xok", add_special_tokens=False)
    assert "".join([*map(detokenizer.push, last), detokenizer.flush()]).endswith("ok")


@given(text=st.lists(st.sampled_from([0xF0, 0x9F, 0x8E, 0x89, 0xE2, 0x82, 0xAC, 0xFF, 0x61]), max_size=40).map(bytes))
def test_any_bytes_come_out_as_decoding_them_together(byte_level, text):
    ids = [max(id for id in range(300) if byte_level.token_bytes(id) == bytes([byte])) for byte in text]
    assert _answer(byte_level, [], ids) == complete_text(byte_level, ids)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_the_bytes_of_the_tokens_make_up_the_text(kind, request):
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer.encode(MULTILINGUAL, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().lstrip() == MULTILINGUAL


@pytest.mark.parametrize(
    ("stops", "pieces", "told", "stopped"),
    [
        ([], ["a", "b"], ["a", "b"], False),
        (["END"], ["one E", "N", "D two"], ["one ", "", ""], True),
        (["END"], ["one E", "N", "X"], ["one ", "", "ENX"], False),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""], True),
        (["xy", "b"], ["axb", "c"], ["ax"], True),
        (["\n\n"], ["a\n", "b\n", "\n"], ["a", "\nb", ""], True),
    ],
)
def test_stop_strings_are_held_back_and_never_told(stops, pieces, told, stopped):
    matcher, results = StopStrings(stops), []
    for piece in pieces:
        results.append(matcher.push(piece))
        if results[-1][1]:
            break
    assert [text for text, _ in results] == told
    assert results[-1][1] is stopped


@pytest.mark.parametrize(
    ("stops", "pieces", "told", "stopped"),
    [
        (["<e>"], ["a", ("<e>", True)], "a", True),
        (["<e>b"], ["a", ("<e>", True), "b"], "a", True),
        (["<e>b"], ["a", ("<e>", True), "c", "d"], "acd", False),
        (["a<e>"], ["xa", ("<e>", True), "d"], "x", True),
        (["a<e>", "zz"], ["xa", ("<f>", True), "d"], "xad", False),
        (["<e><e>z"], [("<e>", True), ("<e>", True), ("<e>", True), "y"], "y", False),
    ],
)
def test_special_tokens_stop_and_are_never_told(stops, pieces, told, stopped):
    matcher, text, found = StopStrings(stops), "", False
    for piece in pieces:
        content, hidden = piece if isinstance(piece, tuple) else (piece, False)
        new, found = matcher.push(content, hidden=hidden)
        text += new
        if found:
            break
    assert (text + ("" if found else matcher.flush()), found) == (told, stopped)


def test_a_choice_ends_at_a_stop_string_with_a_special_token(byte_level):
    [user] = byte_level.encode("<|user|>", add_special_tokens=False)
    [a, b] = byte_level.encode("a", add_special_tokens=False) + byte_level.encode("b", add_special_tokens=False)

    def say(stops: list[str], *tokens: int) -> list[tuple[str, str | None]]:
        choice = Choice(0, Request("id", [a], SamplingParams(max_tokens=9)), byte_level, TextOptions(stops=stops))
        return [(delta.text, delta.finish) for delta in (choice.push(token, None, None) for token in tokens)]

    assert say(["<|user|>"], b, user) == [("b", None), ("", "stop")]
    assert say(["b<|user|>a"], b, user, a) == [("", None), ("", None), ("", "stop")]
    assert say(["b<|user|>a"], b, user, b) == [("", None), ("", None), ("b", None)]
    assert say(["x"], b, user, b) == [("b", None), ("", None), ("b", None)]


def test_what_was_held_for_a_stop_string_is_told_at_the_end():
    matcher = StopStrings(["END"])
    assert matcher.push("the EN") == ("the ", False)
    assert matcher.flush() == "EN"


def test_bos_is_added_once(tmp_path: Path, make_tokenizer: Callable[..., None]):
    make_tokenizer(tmp_path, add_bos=True)
    tokenizer = Tokenizer(tmp_path)
    plain = tokenizer.encode("fox", add_special_tokens=False)
    assert tokenizer.encode("fox", add_special_tokens=True) == [0, *plain]
    assert tokenizer.encode("<|bos|>fox", add_special_tokens=True) == [0, *plain]
    assert tokenizer.encode("<|bos|>fox", add_special_tokens=False) == [0, *plain]


def test_end_tokens_come_from_all_files_that_name_some(tmp_path: Path, make_tokenizer: Callable[..., None]):
    make_tokenizer(tmp_path)  # its eos_token is token 1
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    assert Tokenizer(tmp_path).end_ids == {1, 5, 6, 7}


@pytest.mark.parametrize("value", ['["a"]', "true", '"7"'])
def test_an_end_token_that_is_no_token_id_is_named(tmp_path: Path, make_tokenizer: Callable[..., None], value: str):
    make_tokenizer(tmp_path)
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    with pytest.raises(CorruptModelError, match=r"generation_config\.json: eos_token_id = "):
        Tokenizer(tmp_path)
