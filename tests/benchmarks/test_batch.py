"""What benchmarks/batch measures batches with: its verdict, its stub endpoint, its made-up ledger, and its examples."""

import importlib.util
import json
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.batch import report, scale
from benchmarks.batch.chaos import EVENTS, Breaking, rows_of, verdict
from benchmarks.batch.endpoint import limit, stub
from benchmarks.batch.fill import left

ROOT = Path(__file__).parents[2]


def answered(number, text="moon", tokens=4, error=None):
    usage = {"prompt_tokens": 3, "cached_tokens": number, "completion_tokens": tokens}
    return {
        "id": number, "prompt": f"{number}", "generated_text": text, "finish_reason": "stop", "usage": usage,
        "error": error,
    }  # fmt: skip


EXPECTED = [answered(number) for number in range(4)]
WHOLE = {"missing": 0, "duplicate": 0, "wrong": 0, "misplaced": 0}


@pytest.mark.parametrize(
    ("found", "seen"),
    [
        (EXPECTED, {}),
        ([EXPECTED[0], EXPECTED[1], EXPECTED[3]], {"missing": 1, "misplaced": 1}),
        ([*EXPECTED, EXPECTED[3]], {"duplicate": 1, "misplaced": 1}),
        ([*EXPECTED[:3], answered(3, "sun")], {"wrong": 1}),
        ([*EXPECTED[:3], answered(3, tokens=5)], {"wrong": 1}),
        ([*EXPECTED[:3], answered(3, error="lost")], {"missing": 1}),
        ([EXPECTED[1], EXPECTED[0], *EXPECTED[2:]], {"misplaced": 2}),
    ],
)
def test_a_verdict_names_what_is_not_as_in_the_undisturbed_run(found, seen):
    assert verdict(EXPECTED, found) == WHOLE | seen


def test_cached_tokens_may_differ():
    again = [{**row, "usage": {**row["usage"], "cached_tokens": 99}} for row in EXPECTED]
    assert verdict(EXPECTED, again) == WHOLE


def test_some_rows_ask_the_same_as_the_one_before():
    rows = rows_of(300)
    asked = [{name: value for name, value in row.items() if name != "id"} for row in rows]
    assert asked[100] == asked[101] and asked[200] == asked[201]
    assert rows == rows_of(300)


def test_every_event_is_known():
    assert len(EVENTS) == 20
    assert all(callable(getattr(Breaking, name)) for name in EVENTS)


def test_ratios_are_of_what_was_measured():
    found = report.ratios({"chaos": WHOLE, "prediction": {"ratio": 1.1}})
    assert found["chaos_missing"] == 0 and found["predicted_vs_achieved"] == 1.1
    assert found["efficiency_vs_engine"] is None and list(found) == list(report.RATIOS)


def test_shards_that_are_left_are_spread():
    assert left(1221, 3) == {0, 407, 814}
    assert left(2, 3) == {0, 1}


@pytest.mark.process
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_batch_before_the_stub_endpoint(tmp_path, format):
    found = scale.throughput(tmp_path, format, 500, load_s=0.1)  # which checks every answer
    assert found["rows_per_s"] > 0 and found["peak_mib"] > 0


@pytest.mark.process
def test_a_batch_goes_on_after_a_made_up_ledger(tmp_path):
    found = scale.resume(tmp_path, "jsonl", 600)
    assert 0 < found["sent"] < 600


@pytest.mark.process
def test_the_stub_endpoint_counts_what_it_is_asked(tmp_path):
    with stub(tmp_path, None) as endpoint:
        assert endpoint.asked() == {"first_at": 0.0, "posts": 0}
        assert limit(endpoint.port, 0.1) > 0
        assert endpoint.asked()["posts"] > 0


def test_numbers_that_answers_of_gsm8k_end_with():
    spec = importlib.util.spec_from_file_location("score", ROOT / "examples/gsm8k/score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.number_of("so 3 * 4 = 12\n#### 1,250.00") == Decimal(1250)
    assert module.number_of("#### $18 a day") == Decimal(18)
    assert module.number_of("That makes -3 apples, not 4.") == Decimal(4)
    assert module.number_of("#### five, so 5 of 7") == Decimal(5)
    assert module.number_of("I do not know") is None
    row = {"answer": "<<9*2=18>>\n#### 18", "finish_reason": "stop", "error": None}
    rows = [
        {**row, "generated_text": "#### 18"}, {**row, "generated_text": "18 or 19", "finish_reason": "length"},
        {**row, "generated_text": None, "error": "worker_lost"},
    ]  # fmt: skip
    assert module.score(rows) == {"rows": 3, "right": 1, "without a number": 0, "cut off": 1, "failed": 1}


def test_the_example_schema_is_one():
    schema = json.loads((ROOT / "examples/enrich/schema.json").read_text(encoding="utf-8"))
    assert set(schema["required"]) == set(schema["properties"])
