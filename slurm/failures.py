"""What Slurm says of jobs that have failed, in its states and reasons and in the logs; and what to change.

The words are those of Slurm 22.05 to 25.05: squeue(1), "JOB STATE CODES" and "JOB REASON CODES", and what srun and
slurmstepd write into logs.
"""

from ..core.logs.failures import Explanation, KnownFailure, known

_MEMORY = 'more `mem` in the section of the job, a smaller model or `context_length`, or whole nodes with mem = "0"'
_SEEN_BY_NODES = (
    "set SLURMINFER_HOME to a folder on a filesystem that login and compute nodes share (not /tmp), and serve again"
)

_OTHER_NODE = 'serve again; if it is always the same node, leave it out with slurm = {exclude = "NODE"}'
_STAYS = 'serve again; a `partition` or slurm = {qos = "..."} that is not preempted keeps its nodes'

# By Slurm's state of a job: why it has ended, what to change, and whether it may succeed when it is started again.
STATES: dict[str, Explanation] = {
    "OUT_OF_MEMORY": Explanation(cause="the job used more memory than it has", advice=_MEMORY),
    "NODE_FAIL": Explanation(
        cause="a node of the job failed",
        advice=_OTHER_NODE,
        may_pass=True,
    ),
    "PREEMPTED": Explanation(
        cause="a job of higher priority took the nodes",
        advice=_STAYS,
        may_pass=True,
    ),
    "TIMEOUT": Explanation(
        cause="the walltime limit was over before the job had ended by itself",
        advice="a longer `time` in the section; or `drain_seconds` long enough for the worker to end in order",
        may_pass=True,
    ),
    "BOOT_FAIL": Explanation(
        cause="a node of the job did not boot",
        advice=_OTHER_NODE,
        may_pass=True,
    ),
    "RECONFIG_FAIL": Explanation(
        cause="a node of the job could not be set up",
        advice=_OTHER_NODE,
        may_pass=True,
    ),
    "DEADLINE": Explanation(
        cause="the job's deadline passed",
        advice="a later `deadline`, or none, in `slurm` of the section, or a shorter `time`",
    ),
    "CANCELLED": Explanation(cause="the job was cancelled (scancel)", advice="serve again if that was a mistake"),
    "LAUNCH_FAILED": Explanation(
        cause="Slurm could not launch the job on its node",
        advice=_SEEN_BY_NODES + '; if it is one node only, leave it out with slurm = {exclude = "NODE"}',
        may_pass=True,
    ),
    "REVOKED": Explanation(cause="another cluster of the federation runs the job", advice="look for it there"),
}


def _like(name: str, pattern: str, state: str) -> KnownFailure:
    """What means the same as a state."""
    same = STATES[state]
    return known(name, pattern, same.cause, same.advice, may_pass=same.may_pass)


# By Slurm's reason of a job that has failed.
REASONS = (
    known(
        "launch-failure",
        r"(joblaunchfailure|raisedsignal:53|signal 53\b|^launch failure)",
        "Slurm could not launch the job: its node does not see the job's log folder below SLURMINFER_HOME",
        _SEEN_BY_NODES,
        may_pass=True,
        at_start=True,  # it says so too where all processes of a running job were killed
    ),
    known(
        "killed-by-signal",
        r"(raisedsignal:9\b|signal 9\b)",
        "the job was killed by SIGKILL, most often because memory was full",
        _MEMORY,
        may_pass=True,
    ),
    known(
        "prolog",
        r"prolog",
        "the prolog that the cluster runs before jobs failed on the node",
        f"{_OTHER_NODE}, and tell the administrators",
        may_pass=True,
    ),
    _like("node-down", r"nodedown", "NODE_FAIL"),
    _like("out-of-memory", r"outofmemory", "OUT_OF_MEMORY"),
    _like("time-limit", r"timelimit", "TIMEOUT"),
)

# In the logs of jobs: what slurmstepd, srun and the batch script's shell write.
LOGS = (
    known(
        "memory-limit",
        r"exceeded memory limit \((?P<used>\d+) > (?P<limit>\d+)\)",
        "the job used more memory than it has: {used} of {limit} bytes",
        _MEMORY,
    ),
    known(
        "oom-kill",
        r"(oom[-_]kill event|exceeded job memory limit|cgroup out-of-memory handler|: tasks? \S+: out of memory)",
        "the job used more memory than it has",
        _MEMORY,
    ),
    known(
        "log-folder",
        r"(could not open std(out|err|in) file|unable to (open|create) (the )?(output|std))",
        "the node does not see the job's log folder below SLURMINFER_HOME",
        _SEEN_BY_NODES,
    ),
    known(
        "run-directory",
        r"(no deployment '|cannot read \S*/runs/\S*: no such file|/runs/\S*(no such file or directory|not found))",
        "the node does not see the run directory below SLURMINFER_HOME",
        _SEEN_BY_NODES,
    ),
    known(
        "step-impossible",
        r"unable to create step for job \d+: (?P<why>.*)",
        "srun could not start the task: {why}",
        "leave out of `slurm` what contradicts the keys of the section, such as ntasks or mem-per-cpu beside `mem`",
    ),
    known(
        "bad-interpreter",
        r"bad interpreter",
        "the node has no bash where the batch script expects it",
        "choose a `partition` whose nodes have /bin/bash",
    ),
    _like("cancelled-preempted", r"cancelled at \S+ due to preemption", "PREEMPTED"),
    _like("cancelled-time", r"cancelled at \S+ due to time limit", "TIMEOUT"),
    _like("cancelled-node", r"cancelled at \S+ due to (node failure|job requeue.*node)", "NODE_FAIL"),
)


def explain_reason(reason: str, *, has_worked: bool = False) -> Explanation | None:
    """What Slurm's reason says of a job that has failed; None where it says nothing.

    `has_worked`: whether its program had started before.
    """
    rows = (row for row in REASONS if not (row.at_start and has_worked))
    found = next((row for row in rows if row.pattern.search(reason)), None)
    if found is None:
        return None
    return Explanation(cause=found.cause, advice=found.advice, may_pass=found.may_pass)
