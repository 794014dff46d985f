"""What a command line leads to: a driver here, or as a job; and how workers of its own are used and stopped."""

from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest

from slurminfer.core.errors import BatchError, UsageError
from slurminfer.jobs.batch.batch import Batch, EndpointChoice
from slurminfer.jobs.batch.commands import run as run_module
from slurminfer.jobs.batch.commands import work as work_module
from slurminfer.jobs.batch.commands.run import Job, run
from slurminfer.jobs.batch.commands.work import work
from slurminfer.jobs.batch.driver.options import BatchSummary
from slurminfer.jobs.batch.inputs.files import find
from slurminfer.jobs.batch.inputs.planning import make_plan
from slurminfer.jobs.batch.ledger.ledger import Counts, Ledger
from slurminfer.jobs.batch.ledger.look import DriverSign, LedgerLook
from slurminfer.jobs.batch.ledger.record import Record
from slurminfer.jobs.batch.outputs.export import OutputOptions
from slurminfer.jobs.batch.parameters import Parameters
from slurminfer.jobs.batch.report.tally import BatchState
from slurminfer.jobs.batch.submit.folder import JobsFolder
from slurminfer.slurm.submit import SlurmLauncher

from ....support.launchers import JobTable

SPEC = 'name = "own"\n[model]\npath = "/m"\n[[pool]]\nname = "w"\nworkers = 2\n[router]\npartition = "small"\n'


class Jobs(JobTable):
    """Renders as Slurm would."""

    def render(self, request):
        return SlurmLauncher().render(request)


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    table = Jobs()
    monkeypatch.setattr(run_module, "launcher_named", lambda name: table)
    monkeypatch.setattr(run_module, "with_models_found", lambda spec, progress: spec)
    monkeypatch.setattr(run_module, "_check", lambda batch: None)
    return table


def batch_of(tmp_path, **endpoint):
    return Batch(
        inputs=("/in.jsonl",),
        output=OutputOptions(path=tmp_path / "out.jsonl"),
        endpoint=EndpointChoice(**(endpoint or {"spec": SPEC})),
        parameters=Parameters(samples=2),
    )


def test_a_job_is_submitted_and_the_terminal_told_how_to_look_and_to_end(jobs, tmp_path, capsys):
    batch = batch_of(tmp_path)
    assert run(batch, Job(wanted=True, drivers=3, options={"qos": "long", "time": "30"}), None) == 0
    (asked,) = jobs.requests.values()
    assert asked is not None and (asked.array, asked.partition, asked.time_s) == (3, "small", 1800)
    assert asked.slurm == {"qos": "long"}
    told = capsys.readouterr().out
    assert "driver      Slurm job 1 (an array of 3)" in told
    assert f"slurminfer batch status {batch.output.path}" in told and "slurminfer batch cancel" in told
    assert JobsFolder(batch.output.path).read_batch().endpoint.spec is not None


def test_a_dry_run_prints_all_jobs_and_submits_none(jobs, tmp_path, capsys):
    batch = batch_of(tmp_path)
    run(batch, Job(wanted=True), None, dry_run=True)
    told = capsys.readouterr().out
    assert "# ---- driver ----" in told and "--job-name=batch-out.jsonl" in told
    assert "# ---- router ----" in told and "# ---- w-1 ----" in told
    assert jobs.requests == {} and not batch.ledger.exists()


def test_what_is_wrong_is_said_before_anything_is_submitted(jobs, tmp_path, monkeypatch):
    def check(batch):
        raise BatchError("/in.jsonl is not there")

    with pytest.raises(UsageError, match="--local: the workers would run in the driver's small job"):
        run(batch_of(tmp_path, spec=SPEC, local=True), Job(wanted=True), None)
    with pytest.raises(UsageError, match="API key"):
        run(batch_of(tmp_path, url="http://127.0.0.1:1/v1"), Job(wanted=True), "line\nend")
    monkeypatch.setattr(run_module, "_check", check)
    with pytest.raises(BatchError, match="is not there"):
        run(batch_of(tmp_path), Job(wanted=True), None)
    assert jobs.requests == {}


@pytest.fixture
def driven(monkeypatch, tmp_path):
    """A driver that does what the test sets, with workers of its own; what has happened, in order."""
    events = []

    @contextmanager
    def served(spec, launcher, own, stays):
        events.append(f"served {spec.name}")
        try:
            yield tmp_path / "run"
        finally:
            events.append("stays" if stays() else "stopped")

    class Releasing:
        def __init__(self, run, requests):
            self.requests = requests

        def begin(self):
            events.append(f"all workers, {self.requests()} left")

    def run_batch(options, progress):
        progress(BatchState(total=10, answered=6, failed=1, own=4, elapsed_s=2.0, reasons={"HTTP 400": 1}))
        events.append(f"drives {options.endpoint}")
        if failure := getattr(run_batch, "failure", None):
            raise failure
        return BatchSummary(
            total=10, answered=9, skipped=2, failed=1, prompt_tokens=5, cached_tokens=0, completion_tokens=7,
            elapsed_s=2.0, output=options.output.path,
        )  # fmt: skip

    @contextmanager
    def released(release):
        events.append("releasing")
        yield
        events.append(f"{release.requests()} requests left")

    replaced = {
        "served": served, "Release": Releasing, "released": released, "run_batch": run_batch,
        "launcher_here": lambda local: "local" if local else "slurm",
        "_of_deployment": lambda run, releasing: work_module._Endpoint(options={"endpoint": "e"}, releasing=releasing),
    }  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(work_module, name, value)
    found = LedgerLook(
        counts=Counts(rows=10, answered=9, failed=1, prompt_tokens=0, cached_tokens=0, completion_tokens=0),
        shards=1,
        sealed=0,
    )
    monkeypatch.setattr(work_module, "look", lambda path: found)
    return events, run_batch, monkeypatch, found


def test_own_workers_are_served_released_and_stopped(driven, tmp_path, capsys):
    events, *_ = driven
    assert work(batch_of(tmp_path), None) == 1
    assert events == [
        "served own", "all workers, None left", "releasing", "drives e", "6 requests left", "stopped",
    ]  # fmt: skip
    told = capsys.readouterr().out
    assert "9 of 10 answered" in told and "1 row; column 'error' says why" in told and "1 x HTTP 400" in told


def test_workers_are_not_served_for_a_batch_that_is_answered(driven, tmp_path):
    """As where its job was requeued while it wrote the output."""
    events, *_ = driven
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n')
    batch = msgspec.structs.replace(batch_of(tmp_path), inputs=(str(source),))
    files = find(batch.inputs, None)
    with Ledger(batch.ledger, batch.parameters, lambda: make_plan(files)) as ledger:
        shard = ledger.claim()
        assert shard is not None
        ledger.append(shard, Record(index=0, answer=msgspec.Raw(b"{}")))
        work(batch, None)
        assert "served own" in events
        ledger.seal(shard)
    events.clear()
    work(batch, None)
    assert "served own" not in events
    source.write_text('{"prompt": "another one"}\n')
    work(batch, None)
    assert "served own" in events


def test_they_stay_for_a_driver_that_comes_back_and_for_others_at_work(driven, tmp_path):
    events, run_batch, monkeypatch, found = driven
    run_batch.failure = SystemExit(143)
    with pytest.raises(SystemExit):
        work(batch_of(tmp_path), None, returns=lambda: True)
    assert events[-1] == "stays"
    with pytest.raises(SystemExit):
        work(batch_of(tmp_path), None)
    assert events[-1] == "stopped"
    other = DriverSign(host="n2", process="1", started_at=0.0, seen_at=1.0, is_living=True)
    looked = LedgerLook(counts=found.counts, drivers=(other,), shards=1, sealed=0)
    monkeypatch.setattr(work_module, "look", lambda path: looked)
    with pytest.raises(SystemExit):
        work(batch_of(tmp_path), None)
    assert events[-1] == "stays"


def test_what_other_drivers_have_done_is_in_the_last_word(driven, tmp_path, capsys):
    _, _, monkeypatch, found = driven
    counts = Counts(rows=10, answered=7, failed=3, prompt_tokens=0, cached_tokens=0, completion_tokens=0)
    monkeypatch.setattr(work_module, "look", lambda path: replace(found, counts=counts))
    assert work(batch_of(tmp_path), None) == 3
    assert "rows        7 of 10 answered" in capsys.readouterr().out


@pytest.mark.parametrize(("written", "is_told"), [(True, False), (False, True)])
def test_others_at_work_are_told_of_where_rows_are_left(driven, tmp_path, capsys, written, is_told):
    _, _, monkeypatch, _ = driven

    def run_batch(options, progress):
        return BatchSummary(
            total=10, answered=9, skipped=2, failed=1, prompt_tokens=5, cached_tokens=0, completion_tokens=7,
            elapsed_s=2.0, output=options.output.path if written else None, others=1,
        )  # fmt: skip

    monkeypatch.setattr(work_module, "run_batch", run_batch)
    work(batch_of(tmp_path), None)
    assert ("1 other driver is at work on the rest" in capsys.readouterr().out) == is_told


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(143)])
def test_who_ends_a_driver_reads_that_it_can_go_on(jobs, tmp_path, monkeypatch, capsys, signal):
    def end(batch, key):
        raise signal

    monkeypatch.setattr(run_module, "work", end)
    with pytest.raises(type(signal)):
        run(batch_of(tmp_path), Job(), None)
    assert "ended before anything was sent; the same command begins again" in capsys.readouterr().err
    counts = Counts(rows=1200, answered=9, failed=1, prompt_tokens=0, cached_tokens=0, completion_tokens=0)
    monkeypatch.setattr(run_module, "look", lambda path: LedgerLook(counts=counts, shards=1, sealed=0))
    with pytest.raises(type(signal)):
        run(batch_of(tmp_path), Job(), None)
    assert "ended; 9 of 1,200 rows are answered: the same command goes on" in capsys.readouterr().err
