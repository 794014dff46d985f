"""Adding up what jobs have used."""

import os

import pytest

from slurminfer.core.errors import UsageError
from slurminfer.core.files import write_atomic
from slurminfer.core.records import ROUTER, DeploymentRecord, EnergyRecord, JobRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.site.prices import parse_prices, prices_path
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.receipt.gather import gather
from slurminfer.jobs.receipt.ledger import Doing, JobUsage, Ledger
from slurminfer.jobs.receipt.page import print_receipt
from slurminfer.jobs.receipt.receipt import Found, PoolLine, Receipt, receipt_of
from slurminfer.router.tenants.tenant import Usage
from slurminfer.slurm.accounting import JobRun

PRICES = parse_prices("""
currency = "EUR"
kg_co2_per_kwh = 0.5
[default]
cpu_hour = 0.5
cpu_watts = 10
[[partition]]
name = "gpu"
gpu_hour = 2.0
""")
SPEC = """
name = "d"
[model]
path = "/models/m"
[[pool]]
name = "cpu"
cpus_per_task = 4
"""


def worker(job: str, **fields) -> JobUsage:
    """Four GPUs for an hour: a quarter loading, a quarter idle, a half serving."""
    known = {
        "job": job, "role": f"a-{job}", "pool": "a", "partition": "gpu", "gpus": 4, "cpus": 8, "submitted_at": 1000.0,
        "looked_at": 4600.0, "ended_at": 4600.0, "running_s": 3600.0, "loading_s": 900.0, "idle_s": 900.0,
        "serving_s": 1800.0,
    }  # fmt: skip
    return JobUsage(**{**known, **fields})


def router(**fields) -> JobUsage:
    known = {
        "job": "r", "role": ROUTER, "pool": ROUTER, "partition": "cpu", "cpus": 2, "submitted_at": 900.0,
        "looked_at": 4600.0, "running_s": 3600.0, "idle_s": 3600.0,
    }  # fmt: skip
    return JobUsage(**{**known, **fields})


def run_of(job: str, **fields) -> JobRun:
    known = {
        "job": job, "partition": "gpu", "account": "x", "started_at": 1000.0, "ended_at": 4600.0, "elapsed_s": 3600.0,
        "nodes": 1, "cpus": 8, "gpus": 4,
    }  # fmt: skip
    return JobRun(**{**known, **fields})


def receipt(jobs, runs=None, **found) -> Receipt:
    nothing = {"name": "d", "is_running": True, "usage": {}, "accounts": {}}
    return receipt_of(Found(jobs=jobs, runs=runs or {}, **{**nothing, **found}))


def gpu_hours(line: PoolLine) -> tuple[float, ...]:
    return tuple(part.gpu for part in (line.total, line.loading, line.idle, line.serving, line.unseen))


def test_hours_are_divided_by_what_the_controller_saw():
    found = receipt([worker("1"), worker("2"), router()])
    assert [line.pool for line in found.pools] == ["a", ROUTER]
    assert gpu_hours(found.pools[0]) == (8.0, 2.0, 2.0, 4.0, 0.0)
    assert (found.pools[0].total.cpu, found.pools[0].jobs, found.total.total.cpu) == (16.0, 2, 18.0)
    assert found.since == 900.0


def test_accounting_says_how_long_it_was_and_what_nobody_saw_is_shown():
    runs = {"1": [run_of("1", elapsed_s=3600.0), run_of("1", elapsed_s=3600.0)]}  # requeued once
    (line,) = receipt([worker("1")], runs).pools
    assert gpu_hours(line) == pytest.approx((8.0, 1.0, 1.0, 2.0, 4.0))


def test_rounding_errors_of_the_sums_are_no_unseen_time():
    looks = [0.1] * 10  # whose sum is 1.0 in one order, and a little less in another
    parts = {"running_s": 1.0, "loading_s": 0.0, "idle_s": 0.0, "serving_s": sum(looks)}
    assert parts["serving_s"] < parts["running_s"]
    (line,) = receipt([worker("1", **parts)]).pools
    assert line.unseen.gpu == 0.0


def test_more_seen_than_accounted_is_never_more_than_all():
    (line,) = receipt([worker("1")], {"1": [run_of("1", elapsed_s=3000.0)]}).pools
    assert gpu_hours(line) == pytest.approx((4 / 1.2, 1 / 1.2, 1 / 1.2, 2 / 1.2, 0.0))


@pytest.mark.parametrize(
    "run", [run_of("1", ended_at=None, elapsed_s=9e6), run_of("1", started_at=5.0, ended_at=50.0, elapsed_s=45.0)]
)
def test_runs_whose_end_is_lost_and_older_jobs_of_the_same_id_do_not_count(run):
    (line,) = receipt([worker("1")], {"1": [run]}).pools
    assert line.total.gpu == 4.0


def test_gpus_that_slurm_does_not_account_are_those_of_the_spec():
    (line,) = receipt([worker("1")], {"1": [run_of("1", gpus=0)]}).pools
    assert line.total.gpu == 4.0


def test_a_job_that_nobody_has_seen_is_known_to_accounting():
    (line,) = receipt(
        [worker("1", running_s=0, loading_s=0, idle_s=0, serving_s=0, looked_at=1000.0)], {"1": [run_of("1")]}
    ).pools
    assert gpu_hours(line) == (4.0, 0.0, 0.0, 0.0, 4.0)


def test_a_job_that_has_not_run_costs_nothing():
    (line,) = receipt([worker("1", running_s=0, loading_s=0, idle_s=0, serving_s=0)], prices=PRICES).pools
    assert gpu_hours(line) == (0.0,) * 5 and line.cost == 0.0


def test_overlap_is_counted():
    (line,) = receipt([worker("1", overlap_s=360.0)]).pools
    assert line.overlap.gpu == pytest.approx(0.4)


def test_hours_are_by_the_slurm_account_that_is_charged():
    runs = {"1": [run_of("1"), run_of("1")], "2": [run_of("2", account="y")], "3": [run_of("3")]}
    found = receipt([worker("1"), worker("2"), worker("3"), worker("4")], runs)  # 4 is not known to accounting
    assert [(one.account, one.jobs, one.total.gpu) for one in found.charged] == [("x", 2, 12.0), ("y", 1, 4.0)]


def test_tokens_are_by_tenant_and_account_and_by_gpu_hour():
    usage = {
        name: Usage(requests=1, prompt_tokens=100, cached_tokens=60, generated_tokens=40) for name in ("p", "q", "r")
    }
    found = receipt([worker("1"), router()], usage=usage, accounts={"p": "astro", "q": "astro", "r": None})
    (astro,) = found.accounts
    assert (astro.name, astro.prompt_tokens, astro.cached_tokens, astro.generated_tokens) == ("astro", 200, 120, 80)
    assert (found.tokens.requests, found.tokens.generated_tokens) == (3, 120)
    (rate,) = found.rates
    assert (rate.hour_of, rate.generated_tokens, rate.all_tokens) == ("GPU", 30.0, 105.0)


def test_without_gpus_tokens_are_by_cpu_hour_without_the_router():
    (rate,) = receipt([worker("1", gpus=0), router()], usage={"p": Usage(generated_tokens=80)}).rates
    assert (rate.hour_of, rate.generated_tokens) == ("CPU", 10.0)
    assert receipt([router()]).rates == ()


def test_cost_energy_and_carbon():
    runs = {"1": [run_of("1", energy_j=7.2e6)]}
    found = receipt([worker("1"), router()], runs, prices=PRICES)
    assert (found.total.cost, found.currency) == (8.0 + 1.0, "EUR")
    assert (found.total.energy_kwh, found.total.estimated_kwh) == (2.0, 0.02)
    assert found.kg_co2 == pytest.approx(1.01)
    assert any("some jobs only" in remark for remark in found.remarks)


def test_energy_that_workers_have_read_is_apart_and_the_rest_is_estimated():
    prices = parse_prices("[default]\ngpu_watts = 500\ncpu_watts = 10\nnode_watts = 100")
    read = EnergyRecord(gpu_j=7.2e6, is_sampled=True)  # the CPUs' may not be read
    found = receipt([worker("1", energy=read)], prices=prices)
    (line,) = found.pools
    assert (line.energy_kwh, line.read_kwh) == (None, 2.0)
    assert line.estimated_kwh == pytest.approx(0.08 + 0.1)
    assert line.kwh == pytest.approx(2.18)
    assert any("GPUs: that of their whole boards" in remark for remark in found.remarks)
    assert any("samples of their power" in remark for remark in found.remarks)
    assert not any("not measured" in remark or "energy of CPUs" in remark for remark in found.remarks)


def test_what_slurm_has_measured_counts_before_what_the_worker_has_read():
    read = EnergyRecord(cpu_j=3.6e6)
    runs = {"1": [run_of("1", energy_j=7.2e6)]}
    found = receipt([worker("1", energy=read), worker("2", energy=read)], runs)
    assert (found.total.energy_kwh, found.total.read_kwh, found.total.estimated_kwh) == (2.0, 1.0, None)
    assert any("some jobs only" in remark for remark in found.remarks)
    assert any("times the job's share of the node's CPUs" in remark for remark in found.remarks)


def test_what_is_not_known_is_said():
    prices = parse_prices('currency = "EUR"\n[[partition]]\nname = "gpu"\ngpu_hour = 1.0')
    found = receipt([worker("1"), router(), router(job="s", partition="")], prices=prices)
    assert found.total.cost == 4.0 and found.kg_co2 is None
    assert any("no price for jobs whose partition is not known, partition 'cpu'" in one for one in found.remarks)
    assert any("energy is not measured" in one for one in found.remarks)
    mixed = receipt([worker("1"), worker("2", pool="b", gpus=0)])
    assert any("not counted by pool" in one for one in mixed.remarks)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm
    run = RunDirectory.named("d")
    run.create()
    run.write_spec(parse_spec(SPEC))
    return run


def test_a_deployment_without_accounting_has_the_ledger(run):
    Ledger(run).append([worker("1", pool="cpu", gpus=0), worker("7@8-9", pool="cpu", gpus=0)])
    jobs = (JobRecord(id="3", role="cpu-3", submitted_at=5.0),)
    assert run.claims.take(DeploymentRecord(launcher="slurm", claimed_by="1 on n", claimed_at=1.0, jobs=jobs))
    found = gather(run)
    assert [job.job for job in found.jobs] == ["1", "7@8-9", "3"] and found.is_running
    text = "; ".join(found.remarks)
    assert "no accounting (no Slurm here: sacct is not on PATH)" in text
    assert "1 of 3 jobs: nobody has seen whether they ran" in text
    assert "there is no " in text and "prices.toml" in text


def test_local_jobs_need_no_accounting(run):
    Ledger(run).append([worker("7@8-9", pool="cpu", gpus=0)])
    assert not any("accounting" in remark for remark in gather(run).remarks)


@pytest.fixture
def sacct(tmp_path):
    """Puts a command there that prints these rows: job, start, end, elapsed."""

    def put(*rows: tuple[str, str, str, int]) -> None:
        lines = [f"{job}|{os.getuid()}|p|x|{start}|{end}|{elapsed}|1|4|cpu=4|" for job, start, end, elapsed in rows]
        path = tmp_path / "sacct"
        path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        path.chmod(0o755)

    return put


def test_jobs_that_accounting_does_not_know_are_counted_once(run, sacct):
    """Slurm gives an id again where it has lost its state."""
    sacct(("1", "1000", "4600", 3600))
    Ledger(run).append([worker("1"), worker("1", submitted_at=900.0), worker("2")])
    assert any("does not know 1 of 2 jobs" in remark for remark in gather(run).remarks)


def test_a_job_whose_end_accounting_has_lost_is_said(run, sacct):
    sacct(("1", "1000", "Unknown", 99999), ("2", "9", "99", 90), ("3", "1000", "4600", 3600))
    Ledger(run).append([worker("1"), worker("2"), worker("3")])
    found = gather(run)
    assert any("says no end, or another time, for 2 of 3 jobs" in remark for remark in found.remarks)
    assert receipt_of(found).total.total.gpu == 12.0


def test_what_a_living_job_does_counts_until_now(run):
    Ledger(run).write_living([worker("7@8-9", doing=Doing.SERVING, ended_at=None)])
    (job,) = gather(run, clock=lambda: 4630.0).jobs
    assert (job.running_s, job.serving_s) == (3630.0, 1830.0)
    (job,) = gather(run, clock=lambda: 9999.0).jobs  # nobody looks any more
    assert job.running_s == 3600.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("living_jobs_path", "what the living jobs have used is not counted: "),
        ("usage_path", "tokens are not counted: "),
        ("keys_path", "Slurm accounts of the tenants are not known: "),
    ],
)
def test_a_damaged_file_costs_what_it_has_and_is_said(run, name, said):
    Ledger(run).append([worker("7@8-9", pool="cpu", gpus=0)])
    write_atomic(getattr(run, name), "{")
    found = gather(run)
    assert len(found.jobs) == 1
    assert any(remark.startswith(said) for remark in found.remarks)


def test_usage_that_a_router_has_put_aside_is_said(run):
    write_atomic(run.path / "usage.json.damaged", "{")
    assert any("usage.json.damaged are missing" in remark for remark in gather(run).remarks)


def test_a_damaged_line_is_said(run):
    write_atomic(run.ended_jobs_path, "{\n")
    assert any("1 damaged line of" in remark for remark in gather(run).remarks)


def test_it_is_printed_for_people(run, capsys):
    prices_path().parent.mkdir()
    prices_path().write_text('currency = "EUR"\nkg_co2_per_kwh = 1\n[default]\ncpu_hour = 1\ncpu_watts = 100\n')
    Ledger(run).append([worker("7@8-9", pool="cpu", gpus=0), router()])
    write_atomic(
        run.usage_path,
        '{"version": 1, "tenants": {"owner": {"total": {"requests": 2, "prompt_tokens": 9, "generated_tokens": 80}}}}',
    )
    print_receipt(run, as_json=False)
    text = capsys.readouterr().out
    assert text.startswith("d: stopped, since ")
    assert "cost (EUR)" in text and "tokens per CPU-hour of the workers: 10 generated, 11 with those of prompts" in text
    assert "carbon dioxide: 1.000 kg" in text
    print_receipt(run, as_json=True)
    assert '"pool": "router"' in capsys.readouterr().out


def test_an_empty_deployment_has_an_empty_receipt(run, capsys):
    print_receipt(run, as_json=False)
    assert "no job has been noted yet" in capsys.readouterr().out


def test_a_wrong_price_table_is_an_error_for_the_user(run):
    prices_path().parent.mkdir()
    prices_path().write_text("[default]\ngpu_hour = true")
    with pytest.raises(UsageError, match=r"prices.toml: default.gpu_hour = True"):
        gather(run)
