"""JSON Lines as other programs write them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.core import jsonl
from slurminfer.core.jsonl import BadLineError, decode_line, read_lines


def lines_of(tmp_path, content: bytes):
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    return list(read_lines(path))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf1\r\n2\r\n", [(1, b"1"), (2, b"2")]),
        (b"1\n\n \t\r\n4", [(1, b"1"), (4, b"4")]),
        ('"a\u2028b"\n"c\u2029\x85d"\n'.encode(), [(1, '"a\u2028b"'.encode()), (2, '"c\u2029\x85d"'.encode())]),
        (b'"\xff"\n\x00\n', [(1, b'"\xff"'), (2, b"\x00")]),
    ],
)
def test_lines_end_with_lf_only(tmp_path, content, expected):
    assert lines_of(tmp_path, content) == expected


def test_a_line_beyond_the_limit_is_skipped_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 8)
    content = b"12345678\n" + b"x" * 9 + b"\n" + b"y" * 1000 + b"\n4\n" + b"z" * 20
    assert lines_of(tmp_path, content) == [(1, b"12345678"), (2, None), (3, None), (4, b"4"), (5, None)]


def test_values():
    assert decode_line(b'{"a": [1, "\\ud83d\\ude00", 18446744073709551616]}') == {"a": [1, "😀", 1 << 64]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (None, "longer than 64 MiB"),
        (b"{", "not JSON"),
        (b"NaN", "not JSON"),
        (b"\x00", "not JSON"),
        (b'{"a": "\x00"}', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 2000 + b"]" * 2000, "nested too deeply"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "key 'b' occurs twice"),
    ],
)
def test_what_is_no_value(line, message):
    with pytest.raises(BadLineError, match=message):
        decode_line(line)


KEYS = st.sampled_from(["a", "b", "\\u0061", '\\"', "\\\\", ":", '\\":', '\\\\\\":', " :", "é"])
SPACES = st.sampled_from(["", "", " ", "\t"])


@st.composite
def objects(draw, depth=0):
    """JSON of objects, whose keys may repeat and whose strings look like keys."""
    if depth == 3 or draw(st.booleans()):
        return f'"{draw(KEYS)}"'
    if draw(st.booleans()):
        return f"[{','.join(draw(st.lists(objects(depth=depth + 1), max_size=3)))}]"
    pairs = draw(st.lists(st.tuples(KEYS, SPACES, SPACES, objects(depth=depth + 1)), max_size=3))
    return "{" + ",".join(f'"{key}"{before}:{after}{value}' for key, before, after, value in pairs) + "}"


@settings(max_examples=400, deadline=None)
@given(objects())
def test_a_repeated_key_is_always_found_and_nothing_else_is_refused(text):
    repeated = []

    def look(pairs):
        repeated.append(len({key for key, _ in pairs}) < len(pairs))

    json.loads(text, object_pairs_hook=look)
    if any(repeated):
        with pytest.raises(BadLineError, match="occurs twice"):
            decode_line(text.encode())
    else:
        assert decode_line(text.encode()) == json.loads(text)
