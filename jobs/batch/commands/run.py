"""`slurminfer batch INPUT... OUTPUT`: work on a batch here, submit its drivers, or say beforehand what it will take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ....core.errors import BatchError, UsageError
from ....core.job import JobRequest, Launcher
from ....core.spec.files import dump_spec, parse_spec
from ...launch.launchers import launcher_named
from ...serve.requests import dry_run as rendered_deployment
from ...serve.spec import with_models_found
from ...terminal.console import stderr, stdout
from ...terminal.progress import model_progress
from ..batch import Batch
from ..driver.address import check_key
from ..ledger.look import look
from ..submit.ending import terminated_as_exit
from ..submit.folder import JobsFolder
from ..submit.job import request, submit
from .options import driver_section
from .work import work


@dataclass(frozen=True, kw_only=True)
class Job:
    """The driver as a job. Raises UsageError where it is described and not wanted."""

    wanted: bool = False
    drivers: int | None = None
    file: Path | None = None
    options: Mapping[str, str | None] = field(default_factory=dict)  # of sbatch, by their names as options here

    def __post_init__(self) -> None:
        described = {"array": self.drivers, "job": self.file, **self.options}
        given = [f"--{name}" for name, value in described.items() if value is not None]
        if given and not self.wanted:
            raise UsageError(f"{', '.join(given)}: they describe the driver's job; add --submit, or leave them out")


def run(batch: Batch, job: Job, key: str | None, *, dry_run: bool = False) -> int:
    """Do what the command line says; the number of rows that have failed, as far as that is known at its end.

    Raises UsageError, BatchError, SlurmError, and what serving a spec raises.
    """
    if job.wanted:
        _submit(batch, job, key, dry_run=dry_run)
        return 0
    _check(batch)
    if dry_run:
        from ..report.forecast.dry_run import print_dry_run  # which imports Jinja and pyarrow

        print_dry_run(batch, key)
    else:
        JobsFolder(batch.output.path).write_batch(batch, of_jobs=False)
        try:
            with terminated_as_exit():
                return work(batch, key)
        except (KeyboardInterrupt, SystemExit):
            stderr.print(_where_it_ends(batch))
            raise
    return 0


def _where_it_ends(batch: Batch) -> str:
    """For a person whose signal has ended this driver."""
    try:
        counts = look(batch.ledger).counts
    except BatchError:
        return "ended before anything was sent; the same command begins again"
    return f"ended; {counts.answered:,} of {counts.rows:,} rows are answered: the same command goes on from there"


def _submit(batch: Batch, job: Job, key: str | None, *, dry_run: bool) -> None:
    launcher = launcher_named("slurm")
    if batch.endpoint.local:
        raise UsageError("--local: the workers would run in the driver's small job; leave out --local or --submit")
    section = driver_section(batch.endpoint, job.file, **job.options)
    if batch.endpoint.url is not None:
        check_key(key)
    _check(batch)
    asked = request(batch, section, job.drivers or 1, key)
    if dry_run:
        _print_rendered(batch, asked, launcher)
        return
    jobs = submit(asked, _with_models(batch), launcher)
    output, count = batch.output.path, f" (an array of {jobs.drivers})" if jobs.drivers > 1 else ""
    stdout.print(f"driver      Slurm job {jobs.id}{count}; it goes on without this terminal")
    stdout.print(f"logs        {asked.log_folder}")
    stdout.print(f"look with   slurminfer batch status {output}")
    stdout.print(f"end with    slurminfer batch cancel {output}")


def _check(batch: Batch) -> None:
    """Say what is wrong with inputs, output and parameters before a ledger or a job is made of it.

    Raises UsageError, BatchError.
    """
    from ..inputs.building import Builder  # which imports Jinja and pyarrow
    from ..inputs.files import find
    from .checks import check_output

    Builder(batch.parameters)
    check_output(batch, find(batch.inputs, batch.format))


def _with_models(batch: Batch) -> Batch:
    """The batch with the models of its spec as directories: nodes of a cluster often have no way to fetch one."""
    if batch.endpoint.spec is None:
        return batch
    with model_progress() as progress:
        spec = with_models_found(parse_spec(batch.endpoint.spec), progress)
    return msgspec.structs.replace(batch, endpoint=msgspec.structs.replace(batch.endpoint, spec=dump_spec(spec)))


def _print_rendered(batch: Batch, asked: JobRequest, launcher: Launcher) -> None:
    print(f"# ---- {asked.role} ----\n{launcher.render(asked)}", end="")
    if batch.endpoint.spec is not None:
        stderr.print("the driver submits these jobs, and stops them at the end:")
        for text in rendered_deployment(parse_spec(batch.endpoint.spec), launcher):
            print(f"\n{text}", end="")
