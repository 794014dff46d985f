"""What `slurminfer batch status` says of a batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slurminfer.core.errors import BatchError
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.batch.commands import status as module
from slurminfer.jobs.batch.commands.status import look_at_batch, print_status, view_of, words
from slurminfer.jobs.batch.endpoints.served import OwnDeployments
from slurminfer.jobs.batch.ledger.ledger import Counts
from slurminfer.jobs.batch.ledger.look import DriverSign, LedgerLook
from slurminfer.jobs.batch.report.history import Span
from slurminfer.jobs.batch.submit.folder import JobsFolder
from slurminfer.jobs.batch.submit.view import JobView

OUT = Path("/data/out.jsonl")
DRIVER = DriverSign(
    host="n1",
    process="12@3-aa",
    job="7",
    started_at=50.0,
    seen_at=90.0,
    is_living=True,
    rows=200,
    completion_tokens=8000,
)
COUNTS = Counts(rows=2000, answered=1500, failed=3, prompt_tokens=9000, cached_tokens=100, completion_tokens=70_000)
LOOK = LedgerLook(counts=COUNTS, drivers=(DRIVER,), shards=4, sealed=2)
STEADY = [Span(until=60.0 + 10 * place, seconds=10.0, rows=50.0 + 5 * (place % 2)) for place in range(12)]
DEAD = replace(DRIVER, is_living=False)
WAITS = JobView(id="7", state="PENDING", reason="Priority", is_living=True)
ENDED = JobView(id="7", state="FAILED", reason="exit code 1")


@pytest.mark.parametrize(
    ("found", "jobs", "state", "is_done"),
    [
        (LOOK, [], "running", False),
        (replace(LOOK, drivers=(DEAD,)), [], "stopped", False),
        (replace(LOOK, drivers=(DEAD,)), [WAITS], "waiting", False),
        (replace(LOOK, drivers=(DEAD,)), [ENDED], "stopped", False),
        (replace(LOOK, drivers=(DEAD,), sealed=4), [ENDED], "done", True),
        (replace(LOOK, sealed=4), [], "running", False),  # it writes the output
        (None, [WAITS], "waiting", False),
        (None, [ENDED], "stopped", False),
    ],
)
def test_the_state_is_one_of_four(found, jobs, state, is_done):
    view = view_of(OUT, found, jobs, [])
    assert (view.state, view.is_done) == (state, is_done)


def test_a_person_reads_rows_tokens_drivers_and_jobs():
    told = words(view_of(OUT, LOOK, [WAITS], ["own"], [STEADY]), now=100.0)
    assert told == [
        "/data/out.jsonl: running",
        "rows      1,500 of 2,000 answered, 3 failed",
        "tokens    9,000 in (100 cached), 70,000 out",
        "pace      200 tokens/s",
        "left      1 min 35 s (1 min 30 s to 1 min 40 s)",
        "driver    process 12 on n1, Slurm job 7, seen 10 s ago",
        "job       Slurm job 7 PENDING: Priority",
        "serves    deployment 'own'; see 'slurminfer status own'",
    ]
    assert "goes on" in words(view_of(OUT, replace(LOOK, drivers=(DEAD,)), [], []), now=0.0)[-1]


def test_a_program_reads_json(tmp_path, monkeypatch, capsys):
    (tmp_path / "out.ledger").mkdir()
    monkeypatch.setattr(module, "look", lambda path: LOOK)
    print_status(tmp_path / "out", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["answered"], told["drivers"][0]["host"], told["jobs"]) == (1500, "n1", [])


def test_a_batch_that_waits_for_its_first_worker_is_no_error(tmp_path, monkeypatch):
    folder = JobsFolder(tmp_path / "out")
    folder.make()
    with pytest.raises(BatchError, match=r"no driver has begun on .*out: there is no .*out\.ledger/batch\.json"):
        look_at_batch(folder)
    monkeypatch.setattr(OwnDeployments, "living", lambda self: [RunDirectory(Path("/runs/own"))])
    view = look_at_batch(folder)
    assert (view.state, view.is_done, view.rows) == ("waiting", False, 0)
    told = words(view, now=0.0)
    assert told[1] == "rows      not counted yet"
    assert told[-1] == "serves    deployment 'own'; see 'slurminfer status own'"


def test_the_time_left_is_told_with_its_range_and_only_where_it_is_known():
    view = view_of(OUT, LOOK, [], [], [STEADY])
    assert view.left_s is not None and view.left_low_s is not None and view.left_high_s is not None
    assert view.left_low_s < view.left_s < view.left_high_s
    assert view.left_s == pytest.approx(497 / 5.25, rel=0.05)
    young = view_of(OUT, LOOK, [], [], [])
    assert young.left_s is None and "left      not known yet" in words(young, now=100.0)
    for stopped in (view_of(OUT, replace(LOOK, drivers=(DEAD,)), [], [], [STEADY]), view_of(OUT, None, [WAITS], [])):
        assert stopped.left_s is None and not any(line.startswith("left") for line in words(stopped, now=100.0))


def test_an_output_that_no_batch_has_written_is_named(tmp_path):
    with pytest.raises(BatchError, match=r"out\.ledger is not there: no batch has written this output"):
        print_status(tmp_path / "out", as_json=False)
