"""What every kind of Slurm job can be given, and the file of a single job."""

from msgspec import field

from ..toml import Section
from .values import Cpus, Gpus, Nodes, Option, parse_time


class JobSection(Section, frozen=True, kw_only=True):
    """What every kind of Slurm job can be given."""

    # Slurm partition of the job (sbatch --partition). By default the cluster's default partition.
    partition: str | None = None
    # Slurm account that the job is charged to (sbatch --account). By default yours.
    account: str | None = None
    # CPUs on each node of the job (sbatch --cpus-per-task, with one task a node). The native engine computes with
    # so many threads, one a core at most.
    cpus_per_task: Cpus = 1
    # Memory on each node (sbatch --mem): a number with K, M, G or T, such as "64G"; without a letter in MiB; "0" for
    # all memory of the node. By default what the cluster gives.
    mem: str | None = None
    # Shell lines that run on the node before the program starts, such as "module load cuda". They are part of the batch
    # script, which administrators of the cluster see; secrets belong into `env`. A line that fails (where bash's
    # `set -e` would end a script) is reported in the job's log and by `slurminfer status`, and the job goes on: end one
    # that may fail with "|| true".
    setup: tuple[str, ...] = ()
    # Further sbatch options by their long names, such as {qos = "long", exclusive = true}. true gives an option without
    # a value, false leaves one out. Options that have a key of their own, such as time, are refused here.
    slurm: dict[str, Option] = field(default_factory=dict)


class JobSpec(JobSection, frozen=True, kw_only=True):
    """The file of a single job, such as that of `slurminfer quantize --spec`: one that does one thing and ends."""

    # Nodes that share the work (sbatch --nodes).
    nodes: Nodes = 1
    # GPUs on each node (sbatch --gpus-per-node). 0: the job computes on CPUs.
    gpus_per_node: Gpus = 0
    # Walltime limit (sbatch --time): MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. A job that reaches it goes back
    # to the queue and continues where it was.
    time: str = "01:00:00"

    @property
    def time_s(self) -> int:
        """The walltime limit in seconds."""
        return parse_time(self.time)
