"""The jobs of a deployment whose `deployment.json` is damaged, found by its logs and by the processes here."""

import re
from collections.abc import Iterable

import psutil

from ...core.processes import process_id
from ...core.records import JobRecord
from ...core.rundir import RunDirectory
from ..launch.local import LocalLauncher
from .requests import name_of

_PROGRAMS = ("slurminfer.nodes.agent", "slurminfer.jobs.serve", "slurminfer.router")
_SCRIPT = re.compile(r"(\d+)_submission\.sh", re.ASCII)


def advice(run: RunDirectory) -> str:
    """What a user can do about a damaged `deployment.json`, as the end of a sentence."""
    name = run.path.name
    return f"'slurminfer stop {name} --force' ends what its logs and the processes here tell of, and forgets the rest"


def find_jobs(run: RunDirectory) -> dict[str, list[JobRecord]]:
    """By launcher the jobs that may still live: every job that Slurm was ever given for this deployment's roles,
    which to cancel twice is no error, and the local processes that have the run directory in their command line."""
    found = {LocalLauncher.name: list(_processes(run)), "slurm": list(_slurm_jobs(run))}
    return {launcher: jobs for launcher, jobs in found.items() if jobs}


def _slurm_jobs(run: RunDirectory) -> Iterable[JobRecord]:
    for path in sorted((run.path / "logs").glob("*/*_submission.sh")):
        role = path.parent.name
        if match := _SCRIPT.fullmatch(path.name):
            yield JobRecord(id=match[1], name=name_of(run, role), role=role)


def _processes(run: RunDirectory) -> Iterable[JobRecord]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run.path) in words and any(program in words for program in _PROGRAMS):
            try:
                yield JobRecord(id=process_id.process_id(process.pid), role="")
            except ProcessLookupError:
                continue
