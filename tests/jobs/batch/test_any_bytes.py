"""Whatever stands in the input, in an answer or in the output's place: one line's error, or one clear error."""

import errno
import json
import os

import pytest
from aiohttp import web

from slurminfer.core import jsonl
from slurminfer.core.errors import BatchError, UsageError
from slurminfer.jobs.batch import endpoint
from slurminfer.jobs.batch.ledger.appended import AppendedFile
from slurminfer.jobs.batch.command import EndpointChoice
from slurminfer.jobs.batch.driver.driver import run_batch
from slurminfer.jobs.batch.driver.endpoint import Address, check_key, check_url
from slurminfer.jobs.batch.outputs.answers import make_error

CHAT = {"custom_id": "c", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "c"}]}}


def answer(body: object) -> web.Response:
    """An HTTP 200 with that body, as JSON where it is not bytes."""
    return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_file_of_windows(batch):
    batch.input.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "id": "x1"}\r\n\r\n{"prompt": "b", "id": "x3"}')
    assert batch.run().done == 2
    assert batch.ids() == ["x1", "x3"]


def test_lines_of_any_bytes_get_an_error_each(batch, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 6000)
    batch.lines(
        {"id": "first", "prompt": "a"},
        b'{"prompt": "\xff"}',
        b'{"prompt": "\x00"}',
        b'{"prompt": "' + b"x" * 9000 + b'"}',
        b'{"prompt": ' + b"[" * 2000 + b"]" * 900,
        b'{"id": "deep", "prompt": "a", "x": ' + b"[" * 1200 + b"]" * 1200 + b"}",
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"custom_id": "up", "url": "/v1/../workers", "body": {}}',
        b'{"custom_id": "odd", "url": "/v1/a b\\r\\nx: y", "body": {}}',
        {"id": "last", "prompt": "z", "seed": 1 << 70},
    )
    summary = batch.run()
    assert (summary.total, summary.done, summary.failed) == (12, 2, 10)
    assert batch.ids() == ["first", "last"]
    assert [error["line"] for error in batch.errors()] == list(range(2, 12))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "out of memory"}},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": "a"}]},
        {"choices": [{"text": 1}]},
        {"choices": {}},
        [],
        {"choices": [{"text": "a"}], "usage": {"completion_tokens": -5}},
        b"<html>",
        b"",
        b'{"choices": [{"text": "\xff"}]}',
        b'{"choices": [{"text": "\\ud800"}]}',
        b'{"choices": [{"text": "a"}], "usage": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
        b'{"choices": [{"text": "a"}], "usage": {"a": ' + b"9" * 5000 + b"}}",
    ],
)
@pytest.mark.parametrize("line", [{"id": "c", "prompt": "c"}, CHAT])
def test_answers_that_are_none_are_asked_for_again_and_then_given_up(batch, line, body):
    batch.lines(line, {"id": "other", "prompt": "other"})
    batch.endpoint.faults["c"] = [answer(body) for _ in range(9)]
    summary = batch.run()
    assert (summary.done, summary.failed) == (1, 1)
    assert len(batch.endpoint.faults["c"]) == 6
    (error,) = batch.errors()
    assert (error["id"], error["status"]) == ("c", 200) and error["error"].startswith("failed 3 times: ")


@pytest.mark.parametrize("line", [{"id": "c", "messages": [{"role": "user", "content": "c"}]}, CHAT])
def test_an_answer_without_text_is_an_error_at_once(batch, line):
    batch.lines(line)
    said = {"message": {"content": None, "reasoning_content": "hm"}, "finish_reason": "length"}
    batch.endpoint.faults["c"] = [answer({"choices": [said]})]
    assert batch.run().failed == 1
    assert batch.errors()[0]["error"] == "the answer has no text (finish_reason length)"


@pytest.mark.parametrize("said", [{"tool_calls": [{"id": "1"}]}, {"refusal": "no"}])
def test_tool_calls_and_refusals_are_answers(batch, said):
    batch.lines({"id": "c", "messages": [{"role": "user", "content": "c"}]}, CHAT | {"custom_id": "w"})
    body = {"choices": [{"message": {"content": None, **said}}]}
    batch.endpoint.faults["c"] = [answer(body), answer(body)]
    assert batch.run().done == 2
    by_id = {result.get("custom_id", result["id"]): result for result in batch.results()}
    assert by_id["c"] == {"id": "c", "text": None, **said, "finish_reason": None, "usage": None, "model": None}
    assert by_id["w"]["response"]["body"] == body


def test_an_answer_as_deep_as_can_be_written_can_be_read_by_the_next_run(batch):
    depths = range(900, 1010, 3)
    batch.lines(
        *({"custom_id": f"c{depth}", "url": "/v1/completions", "body": {"prompt": str(depth)}} for depth in depths)
    )
    for depth in depths:
        body = b'{"choices": [{"text": "a"}], "x": ' + b"[" * depth + b"]" * depth + b"}"
        batch.endpoint.faults[str(depth)] = [answer(body) for _ in range(3)]
    first = batch.run()
    assert first.done > 5 and first.failed > 5

    def nested(frames: int):
        return nested(frames - 1) if frames else batch.run()

    assert nested(100).skipped == first.done


def test_a_huge_answer_is_an_error_and_is_not_kept_in_memory(batch, monkeypatch):
    monkeypatch.setattr(endpoint, "LONGEST_ANSWER", 1 << 20)
    batch.prompts(2)
    batch.endpoint.faults["p0"] = [answer(b" " * ((1 << 20) + 1))]
    assert batch.run().failed == 1
    assert batch.errors()[0]["error"].startswith("the answer is longer than")


def test_errors_of_any_bytes(batch):
    batch.prompts(3)
    bodies = (b"\xff\xfe", b"[" * 5000, json.dumps({"error": {"message": "x" * 9000, "code": {}}}).encode())
    for index, body in enumerate(bodies):
        batch.endpoint.faults[f"p{index}"] = [web.Response(body=body, status=400)]
    assert batch.run().failed == 3
    assert all(len(error["error"]) <= 2000 for error in batch.errors())


def test_inputs_that_are_no_files(batch):
    batch.input.mkdir()
    with pytest.raises(BatchError, match=r"in\.jsonl is a directory: expected a file"):
        batch.run()
    batch.input.rmdir()
    os.mkfifo(batch.input)
    with pytest.raises(BatchError, match=r"in\.jsonl is a pipe or a device: expected a file"):
        batch.run()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_outputs_that_are_no_files(batch, make):
    batch.prompts(1)
    make(batch.output)
    with pytest.raises(BatchError, match=r"cannot write .*out\.jsonl"):
        batch.run()


def fill_disk(monkeypatch, name: str, room: int) -> None:
    """From now on, the files with that end of their name take `room` bytes more, and then half lines."""
    write, left = os.write, [room]

    def full(descriptor: int, data: bytes) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith(name):
            return write(descriptor, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)


@pytest.mark.parametrize("file", ["out.jsonl", "out.errors.jsonl"])
def test_a_full_disk_ends_the_batch_with_whole_lines_behind(batch, monkeypatch, file):
    batch.prompts(9)
    if file == "out.errors.jsonl":
        batch.endpoint.faults = {f"p{index}": [400] for index in range(9)}
    line = len(make_error(1, "p0", 400, "stub says 400")) if "errors" in file else 143
    with monkeypatch.context() as patch:
        fill_disk(patch, f"/{file}", 2 * line + 20)
        with pytest.raises(BatchError, match=rf"{file}: No space left on device; what is written so far is whole"):
            batch.run(concurrency=1)
    written = (batch.folder / file).read_bytes()
    assert written.endswith(b"\n") and all(json.loads(line) for line in written.splitlines())
    batch.endpoint.faults = {}
    assert batch.run().done == 9


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "was removed or renamed"),
        (lambda path: path.rename(path.with_name("other")), "was removed or renamed"),
        (lambda path: (path.unlink(), path.write_text("")), "was replaced by another file"),
        (lambda path: os.truncate(path, 0), "was shortened by another program"),
    ],
)
def test_a_file_that_vanishes_is_told(tmp_path, harm, message):
    file = AppendedFile(tmp_path / "out.jsonl")
    file.append(b"1\n")
    file.sync()
    harm(file.path)
    with pytest.raises(BatchError, match=message):
        file.sync()
    file.close()


def test_an_output_that_vanishes_ends_the_batch(batch):
    batch.prompts(3)
    with pytest.raises(BatchError, match="was removed or renamed"):
        run_batch(batch.options(), lambda state: batch.output.unlink(missing_ok=True))


def test_an_error_log_that_cannot_be_replaced(batch):
    batch.prompts(1)
    (batch.folder / "out.errors.jsonl").mkdir()
    with pytest.raises(BatchError, match=r"cannot remove the old .*out\.errors\.jsonl"):
        batch.run()


@pytest.mark.parametrize(
    "url", ["", "foo", "host:8000", "ftp://host/v1", "http://", "http:///v1", "http://host:x", "http://host:99999",
            "http://a b/v1", "http://host/v1?x=1", "http://host/v1#x", "http://[::1/v1", "http://host/v1\n"],
)  # fmt: skip
def test_endpoints_that_are_none(batch, url):
    batch.prompts(1)
    with pytest.raises(UsageError, match=r"endpoint = .*expected a URL such as http://HOST:PORT/v1"):
        batch.run(endpoint=Address(url))
    with pytest.raises(UsageError):
        EndpointChoice(spec=None, run=None, endpoint=url, key=None, local=False).check()
    assert not batch.output.exists()


@pytest.mark.parametrize("url", ["http://host", "https://host:8000/v1", "http://[::1]:80/v1/", "http://127.0.0.1:1"])
def test_endpoints(url):
    check_url(url)


def test_a_key_that_no_header_can_hold():
    check_key(None)
    check_key("sk-a")
    for key in ("a\n", "\u00e4", "a\x00"):
        with pytest.raises(UsageError, match="not printable ASCII"):
            check_key(key)
