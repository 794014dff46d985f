"""What to change where sbatch refuses a job, by what it prints (the texts of slurm_strerror, Slurm 22.05 to 25.05)."""

import re

from .client import WHICH_CLUSTER

_LOCAL = "Where there is no Slurm, serve and batch take --local"
_LIMITS = "'sacctmgr show assoc user=$USER' and 'sacctmgr show qos' list the limits"

# The first that matches counts.
_ADVICE = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (r"invalid partition|partition .*(not available|inactive)", "`partition`: one that 'sinfo -s' lists"),
        (r"invalid account", "`account`: one that 'sacctmgr show assoc user=$USER format=account' lists"),
        (r"invalid qos", "slurm = {qos = \"...\"}: one that 'sacctmgr show assoc user=$USER format=qos' lists"),
        (r"time limit is invalid|invalid --time", "a shorter `time`; 'sinfo -o \"%P %l\"' shows the limits"),
        (
            r"invalid generic resource|invalid gres|invalid (tres|gpu)",
            'GPUs as \'sinfo -o "%P %G"\' spells them: `gpus_per_node`, and beside it slurm = {gres = "gpu:TYPE:N"}',
        ),
        (
            r"memory specification",
            "another `mem`, or none: 'sinfo -o \"%P %m\"' shows the MiB of nodes; clusters that want memory "
            "by CPU or GPU: "
            'slurm = {mem-per-cpu = "4G"}',
        ),
        (r"mutually exclusive", "only one of `mem`, slurm = {mem-per-cpu = ...} and slurm = {mem-per-gpu = ...}"),
        (r"node count specification|more nodes", "fewer `nodes`; 'scontrol show partition' shows MaxNodes"),
        (r"invalid node name", "`nodelist` and `exclude` in `slurm`: names that 'sinfo -N' lists"),
        (r"invalid feature", "`constraint` in `slurm`: a feature that 'sinfo -o \"%P %f\"' lists"),
        (r"reservation", "`reservation` in `slurm`: one that 'scontrol show reservation' lists for you"),
        (r"invalid license", "`licenses` in `slurm`: those that 'scontrol show licenses' lists"),
        (
            r"requested node configuration is not available|cpu count per node",
            "no node of the partition has so many CPUs, GPUs or so much memory: 'sinfo -o \"%P %c %m %G\"' shows what "
            "they have",
        ),
        (
            r"violates accounting/qos policy|(qos|assoc)\w+limit",
            f"a shorter `time`, or fewer CPUs, GPUs, `nodes` or `workers`; {_LIMITS}",
        ),
        (r"maximum number of jobs|submit limit", f"fewer `workers`, or end other jobs first; {_LIMITS}"),
        (
            r"unable to contact slurm controller|socket timed out|no answer within",
            "is SLURM_CONF right, and does 'sinfo' answer here? Else try again later",
        ),
        (r"dns srv lookup failed|could not establish a configuration", f"{WHICH_CLUSTER} {_LOCAL}"),
        (
            r"munge|authentication|zero bytes were transmitted",
            "Slurm's authentication fails here: ask the administrators",
        ),
        (r"permission denied|not permitted", "you may not submit there: another `partition` or `account`"),
    )
)


def advice_on(stderr: str) -> str:
    """What to change where sbatch has printed this; empty where nothing is known."""
    return next((advice for pattern, advice in _ADVICE if pattern.search(stderr)), "")
