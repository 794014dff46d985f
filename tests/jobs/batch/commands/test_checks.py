"""What is refused before a batch has a ledger."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slurminfer.core.errors import BatchError, UsageError
from slurminfer.jobs.batch.batch import Batch, EndpointChoice
from slurminfer.jobs.batch.commands.run import Job, run
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters


@pytest.fixture
def refused(tmp_path):
    """Starts a batch that must be refused, without a ledger; `inputs` and `output` are names in the test's folder."""

    def start(error, match, *inputs, output="out.jsonl", columns=None, **parameters):
        batch = Batch(
            inputs=tuple(str(tmp_path / each) for each in inputs),
            output=OutputOptions(path=tmp_path / output, columns=columns),
            endpoint=EndpointChoice(url="http://127.0.0.1:1/v1"),
            parameters=Parameters(**parameters),
        )
        with pytest.raises(error, match=match):
            run(batch, Job(), "key")
        assert not batch.ledger.exists()

    return start


def test_columns_that_no_file_has(refused, tmp_path):
    (tmp_path / "in.csv").write_text("id,question\n1,a\n")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "in.parquet")
    refused(UsageError, "--prompt-column q: the input has id, question", "in.csv", prompt_column="q")
    refused(
        UsageError, "--messages-column q: the input has id, question, text", "in.csv", "in.parquet", messages_column="q"
    )
    refused(UsageError, "--columns b: the input has text", "in.parquet", prompt_column="text", columns=("text", "b"))
    many = pa.table({f"c{number:02d}": [1] for number in range(30)})
    pq.write_table(many, tmp_path / "many.parquet")
    refused(UsageError, "the input has c00, .*, c19 and 10 more$", "many.parquet", prompt_column="q")


def test_an_input_that_is_not_there_and_parameters_that_contradict_each_other(refused, tmp_path):
    refused(BatchError, r"no\.jsonl: no such file", "no.jsonl")
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    refused(UsageError, "--turn and --samples 2", "in.jsonl", turns=("more",), samples=2)
    refused(UsageError, "--answer-column error", "in.jsonl", answer_column="error")
    refused(BatchError, r"in\.jsonl is the input", "in.jsonl", output="in.jsonl")


@pytest.mark.parametrize(
    ("given", "output"),
    [("*.jsonl", "out.jsonl"), ("**/*.jsonl", "deep/out.jsonl"), (".", "out.jsonl"), ("*", "out")],
)
def test_an_output_that_the_inputs_would_name_too(refused, tmp_path, given, output):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    refused(BatchError, "would be read as input when the same command is started again", given, output=output)
