"""Forms in any pieces."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.api.multipart import MultipartError, MultipartReader, boundary_of

BOUNDARY = b"b-b"


def read(body: bytes, sizes: list[int]):
    """The parts of a body that comes in pieces of these sizes, and then as a whole."""
    pieces, rest = [], body
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    left = [piece for piece in [*pieces, rest] if piece]

    async def more():
        return left.pop(0) if left else b""

    async def parts():
        reader, found = MultipartReader(BOUNDARY, more), []
        while (head := await reader.next()) is not None:
            data = b""
            while piece := await reader.piece():
                data += piece
            found.append((head.name, head.filename, data))
        return found

    return asyncio.run(parts())


def form(*parts, preamble=b""):
    body = preamble
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += b"--b-b\r\n" + f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--b-b--\r\n"


contents = st.binary(max_size=50) | st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--b", b"\r\n--b-", b"x"])).map(
    b"".join
)


@given(st.lists(contents, max_size=3), st.lists(st.integers(1, 20), max_size=30))
def test_any_content_in_any_pieces(data, sizes):
    data = [content for content in data if b"\r\n--b-b" not in b"\r\n" + content]
    parts = [(f"p{n}", "f" if n % 2 else None, content) for n, content in enumerate(data)]
    assert read(form(*parts), sizes) == parts


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30))
def test_garbage_is_an_error_or_a_form(data, sizes):
    for body in (data, b"--b-b\r\n" + data, form(("a", None, b"x"))[: len(data)] + data):
        try:
            read(body, sizes)
        except MultipartError:
            continue


def test_a_preamble_is_left_out():
    assert read(form(("a", None, b"1"), preamble=b"hello\r\n"), []) == [("a", None, b"1")]


@pytest.mark.parametrize("body", [b"x" * 20_000, b"--b-b\r\n" + b"x" * 20_000, b"--b-b\r\n\r\nx\r\n--b-b--", b""])
def test_what_has_no_end_or_no_name_is_refused(body):
    with pytest.raises(MultipartError):
        read(body, [])


def test_names_of_files_may_have_any_letters():
    head = b"--b-b\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''%C3%A9.jsonl\r\n\r\nx\r\n--b-b--"
    assert read(head, []) == [("file", "é.jsonl", b"x")]


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", 'multipart/form-data; boundary=""'])
def test_a_boundary_is_needed(kind):
    with pytest.raises(MultipartError):
        boundary_of(kind)
    assert boundary_of('multipart/form-data; charset=x; boundary="a b"') == b"a b"
