"""The jobs of a deployment whose `deployment.json` is damaged, found by its logs and by the processes here."""

import re
from collections.abc import Iterable

import psutil

from ...core import process_id
from ...core.rundir import RunDirectory
from ..launch.local import LocalLauncher

_PROGRAMS = ("slurminfer.nodes.agent", "slurminfer.router")
_SCRIPT = re.compile(r"(\d+)_submission\.sh", re.ASCII)


def advice(run: RunDirectory) -> str:
    """What a user can do about a damaged `deployment.json`, as the end of a sentence."""
    name = run.path.name
    return f"'slurminfer stop {name} --force' ends what its logs and the processes here tell of, and forgets the rest"


def find_jobs(run: RunDirectory) -> dict[str, list[str]]:
    """By launcher the ids of jobs that may still live: every job that Slurm was ever given for this deployment's roles,
    which to cancel twice is no error, and the local processes that have the run directory in their command line."""
    found = {LocalLauncher.name: sorted(_processes(run)), "slurm": sorted(_slurm_jobs(run))}
    return {launcher: ids for launcher, ids in found.items() if ids}


def _slurm_jobs(run: RunDirectory) -> Iterable[str]:
    scripts = (run.path / "logs").glob("*/*_submission.sh")
    return {match[1] for path in scripts if (match := _SCRIPT.fullmatch(path.name))}


def _processes(run: RunDirectory) -> Iterable[str]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(run.path) in words and any(program in words for program in _PROGRAMS):
            try:
                yield process_id.process_id(process.pid)
            except ProcessLookupError:
                continue
