"""The lines of the access log."""

import json
import logging

from slurminfer.router.relay.access_log import Access, AccessLog


def line_of(**fields):
    lines: list[str] = []
    AccessLog(lines.append, clock=lambda: 1785000000.12345).finished(
        Access(id="a", tenant="t", path="/v1/completions", status=200, seconds=1.23456789, **fields)
    )
    assert len(lines) == 1
    return lines[0]


def test_what_is_not_known_is_left_out():
    assert json.loads(line_of()) == {
        "time": 1785000000.123, "id": "a", "tenant": "t", "path": "/v1/completions", "status": 200, "seconds": 1.2346,
        "attempts": 1,
    }  # fmt: skip


def test_what_is_known_is_said():
    fields = {"model": "m", "worker": "cpu-0", "prompt_tokens": 7, "cached_tokens": 0, "generated_tokens": 3}
    assert json.loads(line_of(**fields)).items() >= fields.items()


def test_a_clients_text_stays_on_one_line_and_short():
    line = line_of(model="x\r\n\x1b[2J" + "y" * 10_000)
    assert "\n" not in line and "\x1b" not in line and len(json.loads(line)["model"]) == 200


def test_there_is_no_field_for_prompts_answers_or_keys():
    assert set(Access.__struct_fields__) == {
        "id", "tenant", "path", "status", "seconds", "model", "worker", "queue_s", "first_byte_s", "prompt_tokens",
        "cached_tokens", "generated_tokens", "attempts",
    }  # fmt: skip


def test_lines_go_to_the_log(caplog):
    with caplog.at_level(logging.INFO):
        AccessLog().finished(Access(id="a", tenant="t", path="/v1/completions", status=200, seconds=1.0))
    assert json.loads(caplog.messages[0])["id"] == "a"
