"""The queue as squeue shows it: one call for a few jobs by their ids, or for all jobs of this user.

Columns are those of `squeue --format` in Slurm 20.11 to 25.05. How often a job was requeued is not among them; a new
run shows as a new `started_at`. Users write nothing but the name. So it comes last, after a tab, which Slurm's reasons
do not have, and only this user's jobs are asked for.
"""

from collections.abc import Collection, Sequence

from ..core.errors import SlurmError
from ..core.job import JobPhase, JobStatus
from . import client
from .client import UNIX_TIMES, ask_both, own_words
from .hostlist import expand
from .reasons import advice, obstacle
from .states import phase_of, state_word
from .values import NOTHING, duration_s, unix_time

_SQUEUE = ("squeue", "--noheader", "--all", "--array", "--states=all")
_COLUMNS = "%i|%T|%N|%S|%e|%l|%P|%q|%r\t%j"  # reason and name are last: they may contain the delimiter
_DELIMITERS = _COLUMNS.count("|")
# Of several ids squeue fetches the jobs of all users from slurmctld and drops the others; of one user only that user's.
_FEW = 20


def queue(ids: Sequence[str]) -> dict[str, JobStatus]:
    """The status of those of the jobs that squeue knows, in one call however many there are. Raises SlurmError.

    More than a few are looked up among the jobs of this user.
    """
    if len(ids) > _FEW:
        return parse_queue(_of_user(), set(ids))
    return parse_queue(_of_ids(ids))


def parse_queue(text: str, wanted: Collection[str] | None = None) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|start|end|time limit|partition|QOS|reason, one per job or array task.

    Times are Unix seconds, or words for none. Of `wanted` only, if they are given.
    """
    rows = (line.split("|", _DELIMITERS) for line in text.split("\n") if line.count("|") >= _DELIMITERS)
    return {row[0]: _status(row) for row in rows if wanted is None or row[0] in wanted}


def _of_user() -> str:
    return _require_user(*ask_both([*_SQUEUE, client.own_jobs(), f"--format={_COLUMNS}"], UNIX_TIMES))


def _of_ids(ids: Sequence[str]) -> str:
    """squeue's rows for `ids`; it fails for a single unknown id, and leaves out unknown ones among several."""
    jobs = f"--jobs={','.join(ids)}"
    try:
        return _require_user(*ask_both([*_SQUEUE, client.own_jobs(), jobs, f"--format={_COLUMNS}"], UNIX_TIMES))
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return ""
        raise


def _require_user(said: str, complaint: str) -> str:
    """What squeue has said. Where it does not know the user, it ends with 0 and no row, as if it had no jobs."""
    if "Invalid user" in complaint:
        raise SlurmError(f"squeue: {own_words(complaint)}")
    return said


def _status(row: Sequence[str]) -> JobStatus:
    job, state, nodes, start, end, limit, partition, qos, last = row
    reason, _, name = last.partition("\t")
    word = state_word(state)
    phase = phase_of(word)
    waits = phase is JobPhase.PENDING
    if reason in NOTHING or word == "CANCELLED":  # for which a cancelled job waited before
        reason = ""
    begins = unix_time(start)
    return JobStatus(
        id=job,
        phase=phase,
        state=word,
        reason=reason,
        node="" if nodes in NOTHING else nodes,
        nodes=expand(nodes),
        starts_at=begins if waits else None,
        started_at=None if waits else begins,
        ends_at=None if waits else unix_time(end),
        limit_s=duration_s(limit),
        partition=partition,
        qos="" if qos in NOTHING else qos,
        obstacle=obstacle(reason) if waits else "",
        advice=advice(reason) if waits else "",
        name=name,
    )
