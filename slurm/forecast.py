"""When a job would start: what `sbatch --test-only` says, without submitting anything.

Slurm answers from its queue as it is now, so the true start may be earlier (jobs end before their limits) or later
(others come first). It does not look at everything that a submission is refused for: limits of the partition, of the
QOS or of the account that EnforcePartLimits and AccountingStorageEnforce leave to the queue are in limits.py.
"""

import re

import msgspec

from ..core.errors import SlurmError
from .client import ask_sbatch
from .hostlist import expand
from .values import unix_time

# "using %u processors on [nodes] %s [in partition %s]": the words in brackets are of 17.02 and later.
_START = re.compile(
    r"Job \d+ to start at (?P<start>\S+) using \d+ processors on (?:nodes )?(?P<nodes>\S+)"
    r"(?: in partition (?P<partition>\S+))?"
)
_NO_ANSWER = re.compile(
    r"unable to contact|timed out|no answer|connection|not on PATH|command not found|configuration source"
    r"|authentication|zero bytes|communication",
    re.IGNORECASE,
)
_PREEMPTS = re.compile(r"Preempts: (?P<jobs>\S+)")


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """When Slurm would start a job, or why it would not."""

    starts_at: float | None = None  # Unix time; None: it would not
    reason: str = ""  # Slurm's words where it would not
    nodes: tuple[str, ...] = ()
    partition: str = ""
    preempts: tuple[str, ...] = ()  # ids of the jobs that would have to give way


def forecast(script: str, *options: str, timeout_s: float | None = None) -> Forecast:
    """When the batch script, with its #SBATCH lines and further options of sbatch, would start.

    Raises SlurmError where Slurm does not answer within `timeout_s` seconds (default: a minute).
    """
    try:
        said, complaint = ask_sbatch(["--test-only", *options], script, timeout_s)
    except SlurmError as error:
        if _is_refusal(str(error)):
            return Forecast(reason=str(error).removeprefix("sbatch: "))
        raise
    return parse_forecast(f"{said}\n{complaint}")


def parse_forecast(text: str) -> Forecast:
    """What sbatch says of a job that would start. Raises SlurmError for anything else."""
    found = _START.search(text)
    starts_at = unix_time(found["start"]) if found else None
    if found is None or starts_at is None:
        raise SlurmError(f"sbatch --test-only says no start: {text.strip() or 'nothing'}")
    preempted = _PREEMPTS.search(text)
    return Forecast(
        starts_at=starts_at,
        nodes=expand(found["nodes"]),
        partition=found["partition"] or "",
        preempts=tuple(preempted["jobs"].split(",")) if preempted else (),
    )


def _is_refusal(words: str) -> bool:
    """Whether Slurm, or sbatch itself, has said no to the job, and not only failed to ask or to answer."""
    return _NO_ANSWER.search(words) is None
