"""The command line of `slurminfer batch`: what it makes of options, and how it names wrong ones."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from slurminfer.cli import app
from slurminfer.core.errors import SpecError, UsageError
from slurminfer.jobs.batch.batch import Batch, EndpointChoice, decode_batch, encode_batch
from slurminfer.jobs.batch.commands import options
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters

URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Calls the command, and gives the batch, the job, the key and whether it is a dry run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    calls = []

    def run(batch, job, key, *, dry_run):
        calls.append((batch, job, key, dry_run))
        return 0

    monkeypatch.setattr("slurminfer.jobs.batch.commands.run.run", run)

    def call(*words):
        done = CliRunner().invoke(app, ["batch", *map(str, words)])
        if done.exception is not None:
            raise done.exception
        assert done.exit_code == 0, done.output
        return calls.pop()

    return call


def test_everything_that_can_be_said_arrives(asked, tmp_path):
    (tmp_path / "system.txt").write_text("Be brief.\n", encoding="utf-8")
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    batch, job, key, dry_run = asked(
        "a.parquet", "more/*.parquet", "out.parquet", "--endpoint", URL, "--api-key", "k",
        "--template", "Translate: {{ text }}", "--system", "system.txt", "--turn", "And why?", "--turn", "Sure?",
        "--schema", "schema.json", "--samples", 3, "--model", "m", "--max-tokens", 9, "--temperature", 0, "--seed", 7,
        "--param", "top_k=20", "--param", 'stop=["\\n"]', "--limit", 5, "--concurrency", 8, "--format", "parquet",
        "--columns", "id, text", "--rows-per-file", 10, "--output-format", "parquet", "--answer-column", "said",
        "--dry-run",
    )  # fmt: skip
    parameters = batch.parameters
    assert batch.inputs == (str(tmp_path / "a.parquet"), str(tmp_path / "more/*.parquet"))
    assert batch.output == OutputOptions(
        path=tmp_path / "out.parquet", format="parquet", rows_per_file=10, columns=("id", "text")
    )
    assert (parameters.template, parameters.system) == ("Translate: {{ text }}", "Be brief.\n")
    assert parameters.turns == ("And why?", "Sure?") and json.loads(parameters.schema) == {"type": "object"}
    assert (parameters.samples, parameters.model, parameters.answer_column) == (3, "m", "said")
    assert {name: json.loads(bytes(value)) for name, value in parameters.sampling.items()} == {
        "max_tokens": 9, "temperature": 0.0, "seed": 7, "top_k": 20, "stop": ["\n"],
    }  # fmt: skip
    assert (batch.limit, batch.sample, batch.concurrency, batch.format) == (5, None, 8, "parquet")
    assert batch.endpoint == EndpointChoice(url=URL)
    assert (key, dry_run, job.wanted) == ("k", True, False)


def test_what_is_not_said_is_left_to_the_batch(asked, tmp_path):
    batch, job, key, dry_run = asked("in.jsonl", "out.jsonl", "--endpoint", URL)
    assert batch == Batch(
        inputs=(str(tmp_path / "in.jsonl"),),
        output=OutputOptions(path=tmp_path / "out.jsonl"),
        endpoint=EndpointChoice(url=URL),
    )
    assert (key, dry_run, job.wanted, job.drivers) == (None, False, False, None)


def test_a_file_that_is_called_like_a_command_is_written_as_a_path(asked, tmp_path):
    assert asked("./status", "out.jsonl", "--endpoint", URL)[0].inputs == (os.path.join(tmp_path, "./status"),)
    assert asked("--endpoint", URL, "status", "out.jsonl")[0].inputs == (str(tmp_path / "status"),)


def test_help_is_that_of_a_run_and_names_the_other_commands():
    told = CliRunner().invoke(app, ["batch", "--help"]).output
    assert all(words in told for words in ("--template", "--submit", "batch status", "batch export", "batch cancel"))
    assert CliRunner().invoke(app, ["batch"]).output == told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--run", "x", "--endpoint", URL], "expected one of --spec, --run and --endpoint; got --run and --endpoint"),
        ([], "expected one of --spec, --run and --endpoint; got none"),
        (["--endpoint", URL, "--local"], "--local says how --spec is served; it means nothing with --endpoint"),
        (["--endpoint", "nonsense"], "endpoint = 'nonsense': expected a URL such as http://HOST:PORT/v1"),
        (
            ["--prompt-column", "a", "--template", "{{ a }}"],
            "--prompt-column and --template: expected one of them, since each says what a row asks for",
        ),
        (
            ["--template", "prompt.jinja"],
            "--template 'prompt.jinja': expected a file, or a text that names columns, such as 'Translate: {{ text }}'",
        ),
        (["--schema", "no.json"], "--schema no.json: expected a file with a JSON schema: No such file or directory"),
        (["--param", "top_k"], "--param 'top_k': expected NAME=JSON, such as top_k=20 or 'stop=[\"\\n\"]'"),
        (["--param", "max_tokens=3"], "--param 'max_tokens=3': say it with --max-tokens"),
        (["--param", "stream=true"], "--param 'stream=true': a batch takes whole answers; leave it out"),
        (["--limit", "3", "--sample", "4"], "--limit 3 --sample 4: expected one of them"),
        (
            ["--partition", "cpu", "--array", "2"],
            "--array, --partition: they describe the driver's job; add --submit, or leave them out",
        ),
    ],
)
def test_wrong_usage_names_the_option_the_value_and_what_is_valid(asked, words, complaint):
    given = words if "--endpoint" in words or "one of --spec" in complaint else ["--endpoint", URL, *words]
    with pytest.raises(UsageError) as raised:
        asked("in.jsonl", "out.jsonl", *given)
    assert str(raised.value) == complaint


def test_a_parameter_that_is_not_json_is_quoted_with_the_reason(asked):
    with pytest.raises(UsageError, match=r"--param 'a=b': 'b' is not JSON \(.*\); a string is written '\"text\"'"):
        asked("in.jsonl", "out.jsonl", "--endpoint", URL, "--param", "a=b")


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_schema_is_a_json_object(asked, tmp_path, text):
    (tmp_path / "schema.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"--schema schema\.json: expected a .*JSON schema"):
        asked("in.jsonl", "out.jsonl", "--endpoint", URL, "--schema", "schema.json")


def test_a_template_file_that_is_no_text_is_named(asked, tmp_path):
    (tmp_path / "t").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="--template t: the file cannot be read as UTF-8 text"):
        asked("in.jsonl", "out.jsonl", "--endpoint", URL, "--template", "t")


def test_a_batch_is_the_same_after_it_was_written_down(tmp_path):
    batch = Batch(
        inputs=("/in",),
        output=OutputOptions(path=tmp_path / "out", columns=("a",)),
        endpoint=EndpointChoice(run="demo"),
        parameters=Parameters(turns=("x",), sampling={"stop": msgspec.Raw(b'["\\n"]')}),
    )
    again = decode_batch(Path("batch.json"), encode_batch(batch))
    assert encode_batch(again) == encode_batch(batch) and again.output == batch.output
    assert again.parameters.differences(batch.parameters) == []


SPEC = """
name = "demo"
[model]
path = "demo"
[[pool]]
time = "02:00:00"
[router]
partition = "small"
account = "lab"
setup = ["module load x"]
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def test_the_drivers_job_gets_what_the_router_gets_unless_options_say_otherwise(spec):
    choice = options.endpoint_choice(spec, None, None, False)
    found = options.driver_section(choice, None, qos=None)
    assert (found.partition, found.account, found.setup, found.time_s) == ("small", "lab", ("module load x",), 7200)
    other = options.driver_section(choice, None, qos="long", partition="big", time="30")
    assert (other.partition, other.account, other.time_s, other.slurm) == ("big", "lab", 1800, {"qos": "long"})
    assert options.driver_section(EndpointChoice(url=URL), None, qos=None).time == options.DRIVER_TIME


def test_the_drivers_job_can_have_a_file_of_its_own(spec, tmp_path):
    choice, path = options.endpoint_choice(spec, None, None, False), tmp_path / "job.toml"
    path.write_text('partition = "own"\nmem = "1G"\n', encoding="utf-8")
    assert options.driver_section(choice, path, qos=None, mem="2G").mem == "2G"
    path.write_text("nodes = 2\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"--job .*job\.toml: nodes = 1 and gpus_per_node = 0 expected"):
        options.driver_section(choice, path, qos=None)
    with pytest.raises(SpecError, match="time = 'soon'"):
        options.driver_section(choice, None, qos=None, time="soon")
