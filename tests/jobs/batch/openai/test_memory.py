"""What a tenant's input may take of the memory of the router's job."""

import subprocess
import sys

from slurminfer.jobs.batch.openai import validation
from slurminfer.jobs.batch.openai.validation import validate


def test_a_line_of_very_many_objects_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """Its 3 MB would be 60 MB in memory, and the 64 MiB that a line may have, 1.4 GB."""
    path = tmp_path / "input.jsonl"
    path.write_bytes(b'{"custom_id": "a", "body": [' + b"{}," * 1_000_000 + b"{}]}\n")
    monkeypatch.setattr(validation, "decode_line", None)  # which would fail
    found = validate(path, "/v1/completions", {"m"})
    assert isinstance(found, tuple)
    (error,) = found
    assert (error.code, error.line) == ("invalid_json_line", 1)
    assert "too many objects and lists: expected at most 1000000" in error.message


def test_the_process_of_a_batch_is_the_first_that_the_kernel_kills_for_memory():
    code = (
        "from slurminfer.jobs.batch.openai import child; child.be_killed_first(); print(open(child.OOM_SCORE).read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout.strip() == "1000"
