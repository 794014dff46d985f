"""The ledger of jobs: it survives what tears it, a second writer, and `stop`."""

import fcntl

import msgspec
import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.records import ROUTER, EnergyRecord, JobRecord, WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.receipt.ledger import Doing, JobUsage, Ledger, advance, close_all, new_usage

SPEC = parse_spec("""
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "big"
nodes = 2
gpus_per_node = 4
tensor_parallel = 8
cpus_per_task = 16
partition = "gpu"
[router]
cpus_per_task = 2
""")


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "d")
    run.create()
    run.write_spec(SPEC)
    return run


def usage(job: str, **fields) -> JobUsage:
    return JobUsage(**{"job": job, "role": "big-0", "pool": "big", "submitted_at": 100.0, "looked_at": 100.0, **fields})


def test_without_files_nothing_is_known(run):
    assert Ledger(run).read() == ([], [])


def test_a_torn_line_costs_that_line_only(run):
    ledger = Ledger(run)
    ledger.append([usage("1", ended_at=200.0), usage("2", ended_at=200.0)])
    whole = run.ended_jobs_path.read_bytes()
    run.ended_jobs_path.write_bytes(whole[:-20])
    ledger.append([usage("3", ended_at=300.0)])
    jobs, damaged = ledger.read_ended()
    assert ([job.job for job in jobs], damaged) == (["1", "3"], 1)


def test_a_line_that_is_no_text_or_of_another_layout_is_left_out(run):
    ledger = Ledger(run)
    run.ended_jobs_path.write_bytes(b"\0\0\xff\n" + msgspec.json.encode(usage("1", version=99)) + b"\n")
    run.ended_jobs_path.chmod(0o600)
    ledger.append([usage("2")])
    jobs, damaged = ledger.read_ended()
    assert ([job.job for job in jobs], damaged) == (["2"], 2)


def test_of_two_notes_of_one_end_the_first_counts(run):
    Ledger(run).append([usage("1", ended_at=200.0)])
    Ledger(run).append([usage("1", ended_at=250.0)])
    (job,), _ = Ledger(run).read()
    assert job.ended_at == 200.0


def test_an_id_that_slurm_gives_again_is_another_job(run):
    Ledger(run).append([usage("1"), usage("1", submitted_at=9000.0)])
    assert len(Ledger(run).read()[0]) == 2


def test_a_job_in_both_files_counts_once(run):
    Ledger(run).write_living([usage("1"), usage("2")])
    Ledger(run).append([usage("1", ended_at=200.0)])
    jobs, _ = Ledger(run).read()
    assert [(job.job, job.ended_at) for job in jobs] == [("1", 200.0), ("2", None)]


def test_what_another_process_is_writing_is_not_mixed_with_ours(run):
    Ledger(run).append([usage("1")])
    with run.ended_jobs_path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunDirectoryError, match="another process is writing"):
            Ledger(run).append([usage("2")])
    Ledger(run).append([usage("2")])
    assert len(Ledger(run).read()[0]) == 2


def test_stop_keeps_the_ledger_and_notes_what_still_ran(run):
    ledger = Ledger(run)
    ledger.append([usage("1", ended_at=150.0)])
    ledger.write_living([usage("2", looked_at=190.0, running_s=90.0, idle_s=90.0, doing=Doing.IDLE)])
    jobs = [JobRecord(id=job, role="big-0", submitted_at=100.0) for job in ("1", "2", "3", "7@8-9")]
    close_all(run, jobs, 200.0)
    run.clear()
    found = {job.job: job for job in Ledger(run).read()[0]}
    assert found.keys() == {"1", "2", "3", "7@8-9"}
    assert (found["1"].ended_at, found["2"].ended_at, found["2"].running_s) == (150.0, 200.0, 100.0)
    assert found["2"].idle_s == 100.0
    assert (found["3"].running_s, found["3"].gpus) == (0.0, 8)  # only accounting knows
    assert found["7@8-9"].running_s == 100.0


def test_a_job_that_nobody_has_seen_for_long_ended_when_it_was_seen_last(run):
    Ledger(run).write_living([usage("2", looked_at=190.0, running_s=90.0, doing=Doing.IDLE)])
    close_all(run, [JobRecord(id="7@8-9", role="big-0", submitted_at=100.0)], 90_000.0)
    seen, unseen = Ledger(run).read()[0]
    assert (seen.ended_at, seen.running_s, unseen.running_s) == (190.0, 90.0, 0.0)


def test_a_deployment_is_stopped_even_where_the_ledger_is_damaged(run, caplog):
    run.living_jobs_path.write_text("{")
    close_all(run, [], 200.0)
    assert "living-jobs.json" in caplog.text


def test_a_job_has_what_the_spec_asks_for():
    worker = new_usage(JobRecord(id="1", role="big-0", submitted_at=1.0), SPEC)
    router = new_usage(JobRecord(id="2", role=ROUTER, submitted_at=1.0), SPEC)
    assert (worker.pool, worker.nodes, worker.gpus, worker.cpus, worker.partition) == ("big", 2, 8, 32, "gpu")
    assert (router.pool, router.nodes, router.gpus, router.cpus) == (ROUTER, 1, 0, 2)


@pytest.mark.parametrize(
    ("doing", "passed", "parts"),
    [
        (Doing.PENDING, 10, (0, 0, 0, 0)),
        (Doing.LOADING, 10, (10, 10, 0, 0)),
        (Doing.LOADING, 500, (500, 500, 0, 0)),
        (Doing.IDLE, 10, (10, 0, 10, 0)),
        (Doing.SERVING, 10, (10, 0, 0, 10)),
        (Doing.SERVING, 500, (500, 0, 0, 0)),  # nobody has looked for so long
        (Doing.UNSEEN, 10, (10, 0, 0, 0)),
        (Doing.IDLE, -10, (0, 0, 0, 0)),  # the clock was set back
    ],
)
def test_time_counts_for_what_a_job_did(doing, passed, parts):
    job = usage("1", doing=doing)
    advance(job, 100.0 + passed)
    assert (job.running_s, job.loading_s, job.idle_s, job.serving_s) == parts


def test_stop_takes_the_energy_that_the_workers_have_told_last(run):
    record = WorkerRecord(
        id="big-0", pool="big", engine="native", model="m", state=WorkerState.GONE, host="n1", job="1", epoch=0, pid=1,
        updated_at=150.0, energy=EnergyRecord(cpu_j=5.0),
    )  # fmt: skip
    run.write_worker(record)
    Ledger(run).write_living([usage("1", doing=Doing.IDLE, looked_at=140.0)])
    close_all(run, [], 150.0)
    (job,), _ = Ledger(run).read_ended()
    assert (job.energy, job.running_s) == (EnergyRecord(cpu_j=5.0), 10.0)
