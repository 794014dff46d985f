"""What Slurm's accounting says that jobs have used. Columns that Slurm 20.11 has, and that no user can write into."""

import os
from collections.abc import Sequence

import msgspec

from .client import UNIX_TIMES, ask
from .values import NOTHING, number, unix_time

_SACCT = (
    "sacct", "--noheader", "--parsable2", "--duplicates",
    "--format=JobID,UID,Partition,Account,Start,End,ElapsedRaw,NNodes,AllocCPUS,AllocTRES,ConsumedEnergyRaw",
)  # fmt: skip
_COLUMNS = 11
_IDS_A_CALL = 1000  # a word of a command line has at most 128 KiB
# Slurm prints these where a node cannot measure its energy: NO_VAL and INFINITE, in 32 bits.
_NO_JOULES = (2**32 - 2, 2**32 - 1)
# What it prints when a sensor was set back, or in 64 bits, would be of nodes that draw more than any does.
_MOST_WATTS = 50_000
_SHORTEST_S = 60.0  # sensors are read now and then: of a short job they may have the time before it


class JobRun(msgspec.Struct, kw_only=True):
    """One run of a job; a job that was requeued has several."""

    job: str
    partition: str
    account: str  # that the job is charged to
    started_at: float | None = None  # Unix time
    ended_at: float | None = None  # Unix time; None: it has not ended, as far as accounting knows
    elapsed_s: float = 0.0
    nodes: int = 0
    cpus: int = 0
    gpus: int = 0  # 0 also where the cluster does not account GPUs
    energy_j: float | None = None  # of its nodes, joules; None: not accounted, or a value that cannot be


def runs_of(ids: Sequence[str], uid: int | None = None) -> dict[str, list[JobRun]]:
    """By job its runs, for those of `ids` that accounting knows. Raises SlurmError where there is no accounting.

    Args:
        ids: of jobs.
        uid: of their user, by default this process's. Slurm may have given an id to a job of somebody else before.
    """
    uid = os.getuid() if uid is None else uid
    found: dict[str, list[JobRun]] = {}
    for first in range(0, len(ids), _IDS_A_CALL):
        text = ask([*_SACCT, f"--jobs={','.join(ids[first : first + _IDS_A_CALL])}"], UNIX_TIMES)
        for run in parse_runs(text, uid):
            found.setdefault(run.job, []).append(run)
    return found


def parse_runs(text: str, uid: int) -> list[JobRun]:
    """The user's runs in rows of the columns above: one row for each run, followed by those of its steps.

    Energy is the most of the run's own row and those of its steps: each of them counts whole nodes.
    """
    runs: list[JobRun] = []
    current: JobRun | None = None  # whose steps follow; None: somebody else's
    for line in text.splitlines():
        row = line.split("|")
        if len(row) != _COLUMNS:
            continue
        if "." not in row[0]:
            current = _run(row) if row[1] == str(uid) else None
            runs += [current] if current is not None else []
        if current is not None and row[0].partition(".")[0] == current.job:
            energy = _joules(row[-1], current)
            current.energy_j = current.energy_j if energy is None else max(energy, current.energy_j or 0.0)
    return runs


def _run(row: Sequence[str]) -> JobRun:
    job, _, partition, account, start, end, elapsed, nodes, cpus, tres, _ = row
    given = dict(item.split("=", 1) for item in tres.split(",") if "=" in item)
    return JobRun(
        job=job,
        partition="" if partition in NOTHING else partition,
        account=account,
        started_at=unix_time(start),
        ended_at=unix_time(end),
        elapsed_s=float(number(elapsed) or 0),
        nodes=number(nodes) or 0,
        cpus=number(given.get("cpu", cpus)) or 0,
        gpus=_gpus(given),
    )


def _gpus(given: dict[str, str]) -> int:
    """GPUs of an AllocTRES such as "cpu=4,gres/gpu=2,gres/gpu:a100=2"; some clusters account the types only."""
    if "gres/gpu" in given:
        return number(given["gres/gpu"]) or 0
    return sum(number(count) or 0 for name, count in given.items() if name.startswith("gres/gpu:"))


def _joules(text: str, run: JobRun) -> float | None:
    """A row's energy; None where there is none, or where no nodes could have drawn it in the run's time."""
    found = number(text)
    if not found or found in _NO_JOULES:
        return None
    most = _MOST_WATTS * max(1, run.nodes) * max(_SHORTEST_S, run.elapsed_s)
    return float(found) if found <= most else None
