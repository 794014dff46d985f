"""Where the figures of a receipt come from: the ledger, Slurm's accounting, the routers' files and the price table."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ...core.errors import RunDirectoryError, SlurmError
from ...core.records import DeploymentRecord
from ...core.rundir import RunDirectory
from ...core.site.prices import prices_path, read_prices
from ...router.tenants.key_store import KeyRecord, KeyStore
from ...router.tenants.tenant import Usage
from ...router.tenants.usage_files import Table, damaged_name, read_usage
from ...slurm.accounting import JobRun, runs_of
from .ledger import SEEN_S, Doing, JobUsage, Ledger, advance, is_local, new_usage
from .receipt import Found, own_runs

_Runs = dict[str, list[JobRun]]


def gather(run: RunDirectory, clock: Callable[[], float] = time.time) -> Found:
    """All that is known of a deployment, running or stopped. What cannot be read is left out, and said in a remark.

    Args:
        run: its directory.
        clock: Unix seconds.

    Raises UsageError for a wrong price table, RunDirectoryError for a damaged spec or record of the deployment.
    """
    remarks: list[str] = []
    prices, deployment = read_prices(), run.read_deployment()
    jobs = _jobs(run, deployment, clock(), remarks)
    runs = _runs(jobs, remarks)
    _say_unknown(jobs, runs, remarks)
    usage = _usage(run, remarks)
    keys: list[KeyRecord] = []
    with _unless_damaged("Slurm accounts of the tenants are not known", remarks):
        keys = KeyStore(run).read()
    if prices is None:
        remarks.append(f"no cost and no carbon: there is no {prices_path()}")
    if run.read_spec().router.backend == "sglang":
        remarks.append("router.backend = 'sglang' in the spec: that router counts no tokens")
    return Found(
        name=run.path.name,
        is_running=deployment is not None,
        jobs=jobs,
        runs=runs,
        usage=usage,
        accounts={key.tenant: key.account for key in keys},
        prices=prices,
        remarks=tuple(remarks),
    )


def _jobs(run: RunDirectory, deployment: DeploymentRecord | None, now: float, remarks: list[str]) -> list[JobUsage]:
    """All jobs, also those that no controller has looked at. `deployment` was read before the ledger: a job that ends
    meanwhile is then in the ledger."""
    jobs, said = Ledger(run).read()
    remarks += said
    known = {usage.key for usage in jobs}
    new = [job for job in (deployment.jobs if deployment else ()) if (job.id, job.submitted_at) not in known]
    spec = run.read_spec()
    return [*(_until_now(usage, now) for usage in jobs), *(new_usage(job, spec) for job in new)]


def _until_now(usage: JobUsage, now: float) -> JobUsage:
    """The same with the time since it was written down, as a controller that still looks would count it."""
    if usage.ended_at is None and usage.doing is not Doing.PENDING and now - usage.looked_at <= SEEN_S:
        advance(usage, now)
    return usage


def _usage(run: RunDirectory, remarks: list[str]) -> Mapping[str, Usage]:
    table: Table = {}
    with _unless_damaged("tokens are not counted", remarks):
        table = read_usage(run.usage_path)
    aside = damaged_name(run.usage_path)
    if aside.exists():
        remarks.append(f"tokens that were counted in {aside} are missing: a router found that file damaged")
    return {tenant: used.total for tenant, used in table.items()}


def _runs(jobs: list[JobUsage], remarks: list[str]) -> _Runs:
    """What accounting knows of the jobs."""
    ids = list(dict.fromkeys(usage.job for usage in jobs if not is_local(usage.job)))
    if not ids:
        return {}
    try:
        runs = runs_of(ids)
    except SlurmError as error:
        remarks.append(
            f"no accounting ({error}): hours are those that the controller has seen, of what the spec asks for"
        )
        return {}
    if missing := len(ids) - len(runs):
        said = f"accounting does not know {missing} of {len(ids)} jobs: their hours are those that the controller saw"
        remarks.append(said)
    disputed = sum(_is_disputed(usage, runs) for usage in jobs)
    if disputed:
        remarks.append(
            f"accounting says no end, or another time, for {disputed} of {len(ids)} jobs that the controller has seen: "
            "their hours are those that it saw"
        )
    return runs


def _is_disputed(usage: JobUsage, runs: _Runs) -> bool:
    """Whether it has run by both, and accounting's runs cannot be its."""
    has_run = any(run.started_at is not None for run in runs.get(usage.job, ()))
    return has_run and usage.running_s > 0 and not own_runs(usage, runs[usage.job])


def _say_unknown(jobs: list[JobUsage], runs: _Runs, remarks: list[str]) -> None:
    never = sum(usage.looked_at == usage.submitted_at and not runs.get(usage.job) for usage in jobs)
    if never:
        remarks.append(f"{never} of {len(jobs)} jobs: nobody has seen whether they ran; not counted")


@contextmanager
def _unless_damaged(consequence: str, remarks: list[str]) -> Iterator[None]:
    """Say in a remark what follows where a file cannot be read."""
    try:
        yield
    except RunDirectoryError as error:
        remarks.append(f"{consequence}: {error}")
