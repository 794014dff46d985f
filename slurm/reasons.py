"""Why a job waits, by the reason that squeue gives: what it means, what to change, and whether waiting helps.

The reasons are those of squeue(1), "JOB REASON CODES", and the sentences that Slurm writes in place of some of them.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One kind of reason: how squeue writes it, what it means, what to change, and whether waiting never helps."""

    pattern: re.Pattern[str]
    words: str
    advice: str
    never_ends: bool


def _never(pattern: str, words: str, advice: str = "") -> Reason:
    return Reason(pattern=re.compile(pattern), words=words, advice=advice, never_ends=True)


def _waits(pattern: str, words: str, advice: str = "") -> Reason:
    return Reason(pattern=re.compile(pattern), words=words, advice=advice, never_ends=False)


_LIMITS = "'sacctmgr show assoc user=$USER' and 'sacctmgr show qos' list the limits"
_OTHER_QOS = 'another `account`, or another slurm = {qos = "..."}'
_LESS_TIME = "a shorter `time`, or another `partition`; 'sinfo -o \"%P %l\"' shows the limits"

# The first that matches counts.
REASONS = (
    _never(
        r"DependencyNeverSatisfied$",
        "a job that it depends on has ended otherwise than it asks for",
        "correct `dependency` in `slurm`, or leave it out",
    ),
    _never(r"JobHeldUser$", "it is held", "'scontrol release JOB' lets it go"),
    _never(r"JobHeldAdmin$", "an administrator holds it", "ask the administrators"),
    _never(
        r"(JobHoldMaxRequeue$|.*requeued? .*held)",
        "it failed to start too often, and is held",
        "'scontrol release JOB' lets it try again; its log and the administrators know why it did not start",
    ),
    _never(r"PartitionTimeLimit$", "its walltime limit is above what the partition allows", _LESS_TIME),
    _never(
        r"PartitionNodeLimit$",
        "it asks for more nodes than the partition allows, or has in service",
        "fewer `nodes`, or another `partition`",
    ),
    _never(
        r"BadConstraints$",
        "no node has what it asks for",
        "smaller `cpus_per_task`, `mem` or `gpus_per_node`, or another `constraint` in `slurm`",
    ),
    _never(
        r"(InvalidAccount|AccountNotAllowed)$|.*account not permitted",
        "its account may not be used here",
        "another `account` or `partition`; 'sacctmgr show assoc user=$USER format=account' lists yours",
    ),
    _never(
        r"(InvalidQOS|QOSNotAllowed)$|.*QOS not permitted",
        "its QOS may not be used here",
        "another slurm = {qos = \"...\"} or `partition`; 'sacctmgr show assoc user=$USER format=qos' lists yours",
    ),
    _never(
        r".*(group not permitted|not permitted to use this partition)",
        "you may not use this partition",
        "another `partition`",
    ),
    _never(
        r"(QOS|Assoc)MaxWall",
        "its walltime limit is above what its account or QOS allows",
        f"a shorter `time`, or {_OTHER_QOS}; {_LIMITS}",
    ),
    _never(
        r"(QOS|Assoc)Max\w*Per(Job|Node)",
        "it asks for more than a limit of its account or QOS allows",
        f"fewer `nodes`, CPUs or GPUs, less `mem`, or {_OTHER_QOS}; {_LIMITS}",
    ),
    _never(
        r"(QOS|Assoc)Min\w*",
        "it asks for less than its account or QOS demands",
        f"more CPUs, GPUs or `nodes`, or {_OTHER_QOS}; {_LIMITS}",
    ),
    _never(
        r"ReservationDeleted$|.*[Rr]eservation .*(deleted|invalid)",
        "its reservation has been deleted",
        "leave `reservation` out of `slurm`, and serve again",
    ),
    _never(r"DeadLine$", "it cannot end before its deadline", "a later `deadline` in `slurm`, or a shorter `time`"),
    _waits(
        r"(QOS|Assoc)\w*(Per(User|Account|UserLimit)|Max(Jobs|Submit))",
        "your other jobs use all that your account or QOS allows",
        f"it starts when some of them end; fewer `workers`, or {_OTHER_QOS}",
    ),
    _waits(
        r"(QOS|Assoc)\w*Grp|(QOS|Assoc)Grp",
        "the jobs of its account or QOS use all that is allowed",
        f"it starts when some of them end, or the budget is renewed; else {_OTHER_QOS}",
    ),
    _waits(
        r"ReqNodeNotAvail.*maintenance|Reserved for maintenance",
        "a maintenance begins before its walltime would end",
        "a `time` that ends before it; 'scontrol show reservation' shows when",
    ),
    _waits(
        r"ReqNodeNotAvail",
        "nodes that it needs are down, drained or reserved",
        "'sinfo -R' says why; another `partition`, or fewer fixed nodes in `slurm`, or a shorter `time`",
    ),
    _waits(
        r"\(?Nodes required for job are DOWN",
        "nodes that it needs are down, drained or reserved for other jobs",
        "'sinfo -R' says why; it starts when they are back",
    ),
    _waits(
        r"PartitionConfig$",
        "no node of the partition that is in service has so many CPUs, so much memory or so many GPUs",
        "'sinfo -o \"%P %c %m %G %T\"' shows what nodes have and how they are; smaller `cpus_per_task`, `mem` or "
        "`gpus_per_node` where none has as much",
    ),
    _waits(
        r"Partition(Down|Inactive)$",
        "an administrator has closed the partition",
        "another `partition`, or wait until it is open",
    ),
    _waits(r"Reservation$", "its reservation has not begun", "'scontrol show reservation' shows when it does"),
    _waits(r"Licenses$", "it waits for a licence", "'scontrol show licenses' shows who has them"),
    _waits(r"BeginTime$", "it may not start before its begin time, or has just been requeued"),
    _waits(r"Dependency$", "a job that it depends on has not ended"),
    _waits(r"Resources$", "nodes are busy", "less `time` and fewer CPUs often start sooner"),
    _waits(r"Priority$", "jobs of higher priority come first", "less `time` and fewer CPUs often start sooner"),
)


def obstacle(reason: str) -> str:
    """What keeps a job from starting as it is, by the reason that squeue gives; empty where it only has to wait."""
    found = _find(reason)
    return found.words if found is not None and found.never_ends else ""


def advice(reason: str) -> str:
    """What to change so that a job starts that waits for this reason; empty where nothing is known."""
    found = _find(reason)
    return found.advice if found is not None else ""


def _find(reason: str) -> Reason | None:
    return next((each for each in REASONS if each.pattern.match(reason)), None)
