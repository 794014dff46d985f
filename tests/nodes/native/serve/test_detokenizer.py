"""Text comes out as the tokens come in: whole characters only, and never a part of a stop string."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from slurminfer.nodes.native.api.detokenizer import Detokenizer, StopStrings
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


def test_bytes_that_are_no_text_are_not_held_forever(byte_level):
    [broken] = [id for id in range(320) if byte_level.token_bytes(id) == b"\xff"]
    detokenizer = Detokenizer(byte_level, [])
    pieces = [detokenizer.push(broken) for _ in range(100)]
    assert sum(map(len, pieces)) > 80
    last = byte_level.encode("ok", add_special_tokens=False)
    assert "".join([*map(detokenizer.push, last), detokenizer.flush()]).endswith("ok")


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
