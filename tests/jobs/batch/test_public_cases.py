"""How batches of other programs have failed, by public reports: rows that share an id, one too long, and so on."""

import json
import os

import pytest
from aiohttp import web

from slurminfer.jobs.batch.driver import retry


def openai_line(prompt: str, custom_id: str = "same"):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt}}


def said(line) -> str:
    return line["response"]["body"]["choices"][0]["text"]


@pytest.mark.parametrize("at_once", [1, 8])
def test_lines_with_the_same_custom_id_are_rows_of_their_own(batch, at_once):
    batch.lines(openai_line("x"), openai_line("y"), openai_line("x"))
    batch.endpoint.faults["x"] = [500]  # so that an equal row is answered before the first
    assert batch.run(concurrency=at_once).answered == 3
    assert [(line["custom_id"], said(line)) for line in batch.results()] == [
        ("same", "echo x"), ("same", "echo y"), ("same", "echo x"),
    ]  # fmt: skip
    assert batch.endpoint.answered == {"x": 2, "y": 1}
    assert batch.run().skipped == 3


def test_one_prompt_of_a_thousand_that_is_too_long_has_its_error_and_holds_up_nobody(batch):
    batch.prompts(1000)
    message = "This model's maximum context length is 4096 tokens, but the prompt has 5000"
    batch.endpoint.faults["p500"] = [web.json_response({"error": {"message": message}}, status=400)]
    summary = batch.run(concurrency=64)
    assert (summary.answered, summary.failed) == (999, 1)
    assert batch.errors() == {"p500": message}
    assert [row["id"] for row in batch.results()] == [f"p{index}" for index in range(1000)]
    assert len(batch.endpoint.bodies) == 1000, "none is sent twice"


def test_a_record_of_many_megabytes_is_kept_and_not_generated_again(batch):
    text = "0123456789abcdef" * (6 << 16)
    batch.prompts(3)
    body = {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}], "usage": None}
    batch.endpoint.faults["p1"] = [web.json_response(body)]
    batch.endpoint.faults["p2"] = [400]
    assert batch.run().failed == 1
    assert batch.answers() == ["echo p0", text]
    assert batch.run().skipped == 2, "the ledger has it whole"
    assert batch.answers() == ["echo p0", text, "echo p2"]


def test_rows_that_are_tried_again_stand_where_they_stood(batch, monkeypatch):
    monkeypatch.setattr(retry, "LONGEST_DELAY_S", 0.02)
    batch.prompts(200)
    for index in range(0, 200, 3):
        batch.endpoint.faults[f"p{index}"] = [[503, 500, "drop"][index % 9 // 3]] * (1 + index % 2)
    assert batch.run(concurrency=16).answered == 200
    assert batch.ids() == [f"p{index}" for index in range(200)]
    assert batch.answers() == [f"echo p{index}" for index in range(200)]
    in_order_of_answers = [body["prompt"] for _, body in batch.endpoint.bodies]
    assert in_order_of_answers[:200] != [f"p{index}" for index in range(200)], "else this shows nothing"


def test_an_older_snapshot_of_the_input_drops_no_results(batch):
    rows = [{"id": f"p{index}", "prompt": f"p{index}"} for index in range(40)]

    def put(some, at: int) -> None:
        batch.lines(*some)
        os.utime(batch.input, (at, at))

    put(rows[:30], 3000)
    assert batch.run().answered == 30
    put([*rows[:20], {"id": "old", "prompt": "old"}], 1000)  # by mistake, with its older time
    summary = batch.run()
    assert (summary.answered, summary.skipped) == (21, 20)
    put(rows, 4000)
    summary = batch.run()
    assert (summary.answered, summary.skipped) == (40, 30)
    assert batch.ids() == [row["id"] for row in rows]
    assert set(batch.endpoint.answered.values()) == {1}, "no row was generated twice"
    assert json.loads(batch.output.read_text().splitlines()[29])["generated_text"] == "echo p29"
