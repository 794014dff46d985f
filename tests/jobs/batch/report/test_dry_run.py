"""`--dry-run`: prompts as they are sent, tokens, and what is known of speed before anything was sent."""

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from slurminfer.core.errors import SlurmError, UsageError
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.batch.batch import Batch, EndpointChoice
from slurminfer.jobs.batch.inputs.plan import InputFile, Plan, Shard
from slurminfer.jobs.batch.inputs.request import BatchRequest
from slurminfer.jobs.batch.inputs.row import Row
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters
from slurminfer.jobs.batch.report.forecast.drawn import draw
from slurminfer.jobs.batch.report.forecast.dry_run import answer_tokens, print_dry_run
from slurminfer.jobs.batch.report.forecast.prediction import Prediction, read_prediction, write_prediction
from slurminfer.jobs.batch.report.forecast.queue_wait import queue_wait
from slurminfer.jobs.batch.report.forecast.speed import of_earlier, of_prediction, of_workers
from slurminfer.jobs.batch.report.forecast.tokens import EndpointTokens, ModelTokens, counted, model_tokens
from slurminfer.jobs.batch.report.history import Span
from slurminfer.jobs.batch.report.interval import Interval
from slurminfer.slurm.forecast import Forecast

URL = "http://127.0.0.1:9"
SPEC = 'name = "d"\n[model]\npath = "{}"\n[[pool]]\nname = "p"\ngpus_per_node = 4\n'


class Reader:
    """Rows of shards that are made as they are read, and counted."""

    def __init__(self):
        self.read = 0

    def rows(self, shard):
        for index in range(shard.rows):
            self.read += 1
            problem = "broken" if (shard.first + index) % 10 == 9 else None
            value = None if problem else {"prompt": f"row {shard.first + index}"}
            yield Row(shard=shard.number, index=index, line=shard.first + index + 1, value=value, problem=problem)


class Builder:
    """Prompts as they are."""

    def build(self, row):
        return request(row.value["prompt"], line=row.line)


def request(prompt=None, messages=None, line=1, **more):
    body = {"prompt": prompt} if messages is None else {"messages": messages}
    text = prompt or json.dumps(messages)
    return BatchRequest(
        shard=0, index=0, line=line, key="k", path="/v1/completions", body={**body, **more}, prompt_bytes=len(text)
    )


def plan_of(shards, rows):
    cut = [Shard(number=n, file=0, first=n * rows, rows=rows) for n in range(shards)]
    file = InputFile(path=Path("in"), format="text", size=0, changed_ns=0, rows=shards * rows)
    return Plan(files=(file,), shards=tuple(cut))


def test_rows_are_drawn_from_all_shards_and_always_the_same_ones():
    plan, reader = plan_of(500, 8192), Reader()
    found = draw(plan, reader, Builder())
    lines = [one.line for one in found.requests]
    assert len(lines) + len(found.problems) == 300
    assert lines[0] <= 512 and lines[-1] > 499 * 8192 and lines == sorted(lines)
    assert reader.read <= 64 * 512, "most of the input is not read"
    assert [one.line for one in draw(plan, Reader(), Builder()).requests] == lines
    assert found.problems[0].startswith("line ") and found.problems[0].endswith(": broken")


def test_of_a_small_input_all_rows_are_looked_at():
    found = draw(plan_of(3, 20), Reader(), Builder())
    assert len(found.requests) == 54 and len(found.problems) == 6


def test_tokens_are_the_model_s_own(chat_model):
    counter = ModelTokens(chat_model)
    asked = request(messages=[{"role": "user", "content": "Hello"}])
    text = counter.text(asked)
    assert text is not None and "Hello" in text and text != "Hello"
    assert counter.count(asked) == len(counter._tokenizer.encode(text, add_special_tokens=False))
    counts, basis = counted([counter], [asked, request("one two three")])
    assert basis == ModelTokens.basis and all(counts)


def test_what_the_tokenizer_cannot_count_is_estimated_and_says_so(chat_model, tmp_path):
    image = request(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}])
    counts, basis = counted([ModelTokens(chat_model)], [request("12345678"), image])
    assert counts[0] == 2 and "estimated" in basis
    assert model_tokens(tmp_path) is None and model_tokens(tmp_path / "none") is None


def test_an_endpoint_that_has_the_page_counts(monkeypatch):
    asked = []

    def answer(call):
        asked.append((call.url.path, json.loads(call.content), call.headers.get("Authorization")))
        return httpx.Response(200, json={"count": 7, "tokens": [1]})

    original = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: original(transport=httpx.MockTransport(answer), **options))
    counter = EndpointTokens(f"{URL}/v1", "sk", "m")
    assert counter.count(request("hi", max_tokens=5)) == 7
    assert asked == [("/tokenize", {"model": "m", "prompt": "hi"}, "Bearer sk")]


def test_an_endpoint_without_the_page_is_asked_once():
    counter = EndpointTokens(URL, None, None)
    counts, basis = counted([counter], [request("12345678")] * 3)
    assert counts == [2, 2, 2] and "estimated" in basis


def worker(**fields):
    return {"state": "ready", "healthy": True, "capacity": 64, "prefill_rate": 5000.0, "decode_rate": 50.0, **fields}


def test_speed_by_what_the_router_has_measured_is_rough_and_says_so():
    page = {"workers": [worker(), worker(prefill_rate=None), worker(state="gone")]}
    found = of_workers(page, 1000, prompt_tokens=500, completion_tokens=100)
    assert found is not None and "1 of 2 workers" in found.basis and "rough" in found.remarks[0]
    assert found.rows_per_s.high == pytest.approx(2 / (0.1 + 100 / 50 / 64))
    assert found.rows_per_s.low == pytest.approx(2 / (0.1 + 100 / 50 / 8))
    assert found.seconds.likely == pytest.approx(1000 / found.rows_per_s.likely)
    assert found.seconds.low < found.seconds.likely < found.seconds.high


@pytest.mark.parametrize("page", [None, {}, {"workers": 5}, {"workers": [3]}, {"workers": [worker(decode_rate=None)]}])
def test_nothing_measured_is_no_speed(page):
    assert of_workers(page, 10, 10, 10) is None


def test_speed_by_the_rows_that_were_done_last():
    slow = [Span(until=10.0 * n, seconds=10.0, rows=10) for n in range(1, 11)]
    fast = [Span(until=100 + 10.0 * n, seconds=10.0, rows=100 + n % 2) for n in range(1, 11)]
    found = of_earlier([slow + fast], 10_000)
    assert found is not None and found.rows_per_s.likely == pytest.approx(10.05, rel=0.01)
    assert found.seconds.covers(10_000 / 10.05) and found.seconds.high < 1200
    assert of_earlier([slow[:1]], 100) is None and of_earlier([], 100) is None


def test_a_sample_s_prediction_is_scaled_to_what_is_left():
    span = Interval(low=90.0, likely=100.0, high=120.0)
    before = Prediction(made_at=0.0, rows=1000, basis="a sample", seconds=span, rows_per_s=span, is_of_sample=True)
    found = of_prediction(before, 500)
    assert found is not None and found.seconds == span.times(0.5) and found.is_of_sample
    assert of_prediction(Prediction(made_at=0.0, rows=5, basis="", seconds=span, rows_per_s=span), 5) is None


def batch_of(tmp_path, rows, **parameters):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Batch(
        inputs=(str(tmp_path / "in.jsonl"),),
        output=OutputOptions(path=tmp_path / "out.jsonl"),
        endpoint=EndpointChoice(url=URL),
        parameters=Parameters(**parameters),
    )


def test_lengths_of_answers_are_those_before_or_else_a_bound(tmp_path):
    batch = batch_of(tmp_path, [])
    two = [request("a", max_tokens=10), request("b", max_completion_tokens=30, n=2)]
    assert answer_tokens(batch, two, None)[0] == Interval(low=35, likely=35, high=35)
    assert answer_tokens(batch, [*two, request("c")], None)[0] is None
    before = Interval(low=1, likely=2, high=3)
    assert answer_tokens(batch, two, before) == (before, "as those before")


def test_a_dry_run_shows_prompts_and_says_that_the_speed_is_unknown(tmp_path, capsys):
    rows = [{"q": f"question {n}"} for n in range(50)] + [{"other": 1}]
    batch = batch_of(tmp_path, rows, template="Answer: {{ q }}", system="Be short.")
    print_dry_run(batch, None)
    told = capsys.readouterr().out
    assert "[system] Be short.\n[user] Answer: question 0" in told and told.count("---- line") == 3
    assert "1 of 51 rows that were looked at cannot be sent" in told and "line 51" in told
    assert "speed       unknown: nothing was measured yet; --sample 200" in told and "characters / 4" in told
    assert "rows        51 to do" in told
    assert not batch.ledger.exists(), "nothing is left behind where nothing was predicted"


@pytest.mark.parametrize(("path", "is_known"), [("demo", True), ("org/name", False), ("x" * 300, False)])
def test_a_spec_s_model_is_read_by_name_where_it_was_fetched_before(tmp_path, monkeypatch, path, is_known):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    asked: list[Path] = []
    monkeypatch.setattr("slurminfer.jobs.batch.report.forecast.dry_run.model_tokens", asked.append)
    batch = msgspec.structs.replace(
        batch_of(tmp_path, [{"prompt": "a"}]), endpoint=EndpointChoice(spec=SPEC.format(path), local=True)
    )
    print_dry_run(batch, None)
    assert asked == [], "nothing is fetched for a dry run"
    (tmp_path / "models" / "SmolLM2-135M-Instruct").mkdir(parents=True)
    print_dry_run(batch, None)
    assert asked == ([tmp_path / "models" / "SmolLM2-135M-Instruct"] if is_known else [])


def test_a_dry_run_refuses_columns_that_no_row_has(tmp_path):
    batch = batch_of(tmp_path, [{"prompt": "a"}])
    batch = msgspec.structs.replace(batch, output=OutputOptions(path=tmp_path / "out.jsonl", columns=("b",)))
    with pytest.raises(UsageError, match="--columns b: no row of the input has it; there are prompt"):
        print_dry_run(batch, None)


def test_a_dry_run_after_a_sample_predicts_and_keeps_it(tmp_path, capsys):
    batch = batch_of(tmp_path, [{"prompt": f"p{n}"} for n in range(100)])
    span = Interval(low=90.0, likely=100.0, high=120.0)
    write_prediction(
        batch.ledger,
        Prediction(made_at=0.0, rows=400, basis="a sample of 50 rows", seconds=span, rows_per_s=span, is_of_sample=True,
                   completion_tokens=span),
    )  # fmt: skip
    print_dry_run(batch, None)
    told = capsys.readouterr().out
    assert "time        25 s (22 s to 30 s)" in told and "by a sample of 50 rows" in told
    kept = read_prediction(batch.ledger)
    assert kept is not None and kept.rows == 100 and kept.is_of_sample and kept.completion_tokens == span


def test_the_wait_in_the_queue_is_slurm_s_word():
    spec, now = parse_spec(SPEC.format("m")), 1000.0
    asked = []

    def ask(job):
        asked.append(job.role)
        return Forecast(starts_at=now + 7300)

    assert queue_wait(spec, ask, lambda: now) == (
        "pool p: Slurm would start a worker in 2 h 1 min (0 s to 2 h 3 min): sooner if jobs end before their limits, "
        "later if more urgent ones come"
    )
    assert asked == ["p-0"]
    assert "now" in queue_wait(spec, lambda job: Forecast(starts_at=now), lambda: now)
    assert "too large" in queue_wait(spec, lambda job: Forecast(reason="too large"), lambda: now)

    def fail(job):
        raise SlurmError("no answer")

    assert queue_wait(spec, fail) == "pool p: unknown (no answer)"


def test_a_pool_that_takes_holes_has_no_wait_that_slurm_could_tell():
    pool = '[[pool]]\nname = "h"\nbackfill = true\nmax_workers = 2\ntime_min = "20"\n'
    spec = parse_spec(f'name = "d"\n[model]\npath = "m"\n{pool}')
    told = queue_wait(spec, lambda job: Forecast(starts_at=7300.0), lambda: 0.0)
    assert told == "pool h: Slurm plans no start now; holes in its schedule are used as they come"
    assert queue_wait(spec, lambda job: Forecast(starts_at=1.0), lambda: 0.0).endswith("would start a worker now")


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory) -> Path:
    """A tokenizer of words, with a chat template."""
    folder = tmp_path_factory.mktemp("model")
    words = ["<unk>", "<s>", "user", "assistant", "Hello", "one", "two", "three", ":"]
    tokenizer: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(words)}, "unk_token": "<unk>"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    template = "{% for m in messages %}{{ m.role }} : {{ m.content }}\n{% endfor %}assistant :"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder
