"""`[[pool]]` of a spec."""

from typing import Annotated, Literal

from msgspec import Meta, field

from ..containers import ContainerRuntime
from ..workers.layout import Layout
from .job import JobSection
from .model import ModelSpec
from .values import Gpus, Nodes, Ranks, Requests, Seconds, parse_time


class PoolSpec(JobSection, frozen=True, kw_only=True):
    """`[[pool]]`: identical workers, each a Slurm job of its own. A spec has one such section or several."""

    # Name of the pool, different for every pool; its workers are called NAME-0, NAME-1 and so on. Letters, digits, '.',
    # '_' and '-', at most 63, beginning with a letter or digit; not "router".
    name: str = "workers"
    # The program that computes: native (slurminfer's own, on CPUs and GPUs), sglang or vllm. The latter two must be
    # installed in the environment of `python`.
    engine: str = "native"
    # Workers that are started, each with the whole model. The router spreads requests over them.
    workers: Annotated[int, Meta(ge=1, le=10_000)] = 1
    # Workers that share each job of the pool, each with the whole model and a part of the job's CPUs and GPUs: for
    # sites that give whole nodes only. "numa" (on CPUs): one on each NUMA domain of the job's CPUs, whatever node Slurm
    # chooses. A number: so many; on GPUs it divides gpus_per_node. cpus_per_task, gpus_per_node and mem are those of
    # the whole job; ranks and max_running_requests are those of each worker. `workers`, `min_workers`, `max_workers`
    # and `slurminfer scale` then count jobs. The workers of job NAME-0 are called NAME-0.0, NAME-0.1 and so on. Only
    # with nodes = 1.
    workers_per_job: Annotated[int, Meta(ge=1, le=64)] | Literal["numa"] = 1
    # The fewest workers, where their number follows the load; it begins with `workers`. With min_workers = 0 a pool
    # without requests has no worker: the next request waits in the router until there is one again. By default
    # `workers`. Only with backend = "native" under [router]. `slurminfer scale` changes the number while the deployment
    # runs.
    min_workers: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    # The most workers, where their number follows the load. By default `workers`.
    max_workers: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    # A worker is added when a request has waited in the router for so many seconds.
    target_queue_time: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    # Workers are taken away when fewer would have been enough for so many seconds.
    idle_time: Annotated[float, Meta(ge=10, le=604_800)] = 300.0
    # Hours that the pool's workers may use a day (from midnight, local time): GPU-hours, or node-hours where a worker
    # has no GPU. When they are used up, the pool has min_workers until midnight. By default there is no such bound.
    hours_per_day: Annotated[float, Meta(gt=0, le=10_000_000)] | None = None
    # Jobs of this pool that may wait in Slurm's queue at the same time: while so many do, no other one is submitted.
    # `serve` submits the first `workers` at once, however many they are.
    max_pending: Annotated[int, Meta(ge=1, le=10_000)] = 10
    # Whether the pool's workers run only in holes of Slurm's schedule, for batches: while there is work, the controller
    # submits jobs of the longest walltime, between `time_min` and `time`, that Slurm would start now. Such a job gets
    # no successor and does not go back to the queue. Needs `time_min` and `max_workers`; the fewest workers are none.
    backfill: bool = False
    # Nodes of each worker (sbatch --nodes). More than one needs Slurm, and as many ranks as divide evenly among them.
    nodes: Nodes = 1
    # Ranks (processes, each with one GPU or a share of the node's CPUs) that split every layer of the model. A worker
    # has tensor_parallel x sequence_parallel x pipeline_parallel ranks: on GPUs exactly one for each GPU of its nodes,
    # on CPUs at most one for each CPU.
    tensor_parallel: Ranks = 1
    # Groups of tensor_parallel ranks that split the tokens and the KV cache among them, each with all layers of its
    # stage, for prompts that are too long for one. Engine native only.
    sequence_parallel: Ranks = 1
    # Stages that the layers are divided into, one after the other; each has ranks of its own, which hold only its
    # layers.
    pipeline_parallel: Ranks = 1
    # GPUs on each node (sbatch --gpus-per-node). 0: the worker computes on CPUs. Where the cluster wants --gres, or a
    # type, say how beside it, such as slurm = { gres = "gpu:a100:4" }; then --gpus-per-node is left out. What
    # `slurminfer doctor` has seen to be refused without is set by itself.
    gpus_per_node: Gpus = 0
    # Walltime limit of each worker (sbatch --time): MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. Before a worker
    # reaches it, another one takes over from it. One that has no successor by then goes back to Slurm's queue under the
    # same job id, and serves again when it is started again.
    time: str = "01:00:00"
    # The shortest walltime that a worker may be given (sbatch --time-min), written as `time`. With it, `time` is the
    # longest: Slurm may shorten a job so that it starts sooner, and the controller chooses the limit of each new job
    # between the two by when Slurm would start it. By default every worker gets `time`.
    time_min: str | None = None
    # So many seconds before the walltime limit (sbatch --signal) a worker takes no more requests, and waits for those
    # in flight for up to 80% of this time; the rest is for ending the engine and requeueing. Must be less than `time`.
    # Slurm may send the signal up to a minute earlier. After SIGTERM (scancel, preemption) a worker waits up to 20
    # seconds, whatever stands here.
    drain_seconds: Seconds = 60
    # How long a worker may take from the start of its engine, loading of the model included, until it generates tokens;
    # written as `time`. One that takes longer fails, with the path of the engine's log as part of the reason.
    start_timeout: str = "01:00:00"
    # Requests that one worker computes at once; others wait in the engine. By default the engine's own limit, which is
    # 64 for native.
    max_running_requests: Requests | None = None
    # Path of the Python interpreter that starts the engine, in the environment that holds it. By default slurminfer's;
    # in a container the image's `python3`, but with engine native slurminfer's too, which is mounted.
    python: str | None = None
    # Image of a container that the engine runs in: the absolute path of a .sif or .sqsh file or of an image directory,
    # an address such as "docker://ORG/IMAGE:TAG" or "oras://...", or for Pyxis "[REGISTRY#]IMAGE[:TAG]". slurminfer
    # itself runs outside of it. By default there is no container.
    container: str | None = None
    # What starts the container: apptainer (or singularity, where only that is on PATH) or pyxis (options of srun). By
    # default the one that the image's form is for; for docker:// apptainer, unless `slurminfer doctor` has seen only
    # Pyxis in the pool's partition.
    container_runtime: ContainerRuntime | None = None
    # Further folders of the node for the container: "/path", "/path:/path-in-container" or the latter with ":ro". Your
    # home directory, SLURMINFER_HOME, the models, TMPDIR and what slurminfer itself needs are always there.
    container_mounts: tuple[str, ...] = ()
    # Where each node of a worker copies the weights to before the engine starts, which then reads them there: the path
    # of a folder on the node's own disk, in which $VARIABLES of the node are filled in, or true for the node's scratch
    # (as `slurminfer doctor` has found it, else SLURM_TMPDIR or TMPDIR). Workers on the same node share a copy, and the
    # last one removes it. By default nothing is copied, and engines read the shared filesystem.
    stage_weights: bool | str = False
    # Whether caches of compiled code that would be on a shared filesystem are kept on the node's own disk, where it has
    # scratch that outlives the job. Caches that you place by their own variables stay there.
    local_caches: bool = True
    # Further command line options of the engine, word by word, such as ["--mem-fraction-static", "0.8"].
    extra_args: tuple[str, ...] = ()
    # Environment variables of the workers, such as {NCCL_DEBUG = "INFO"}, besides those that serve was started with.
    # They reach the job through a file that only you can read, not through the batch script.
    env: dict[str, str] = field(default_factory=dict)
    # This pool gets requests only while those of the same model in the other pools would wait for more than so many
    # seconds. For a pool on CPUs beside one on GPUs. By default it gets them like the others. At least one pool of each
    # model must be without this key.
    spill_after: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    # Another model for this pool, in a section [pool.model] with the keys of [model]. By default that of [model].
    model: ModelSpec | None = None

    @property
    def time_s(self) -> int:
        """The walltime limit of each worker in seconds."""
        return parse_time(self.time)

    @property
    def time_min_s(self) -> int | None:
        """`time_min` in seconds; None where the walltime is fixed."""
        return None if self.time_min is None else parse_time(self.time_min)

    @property
    def start_timeout_s(self) -> int:
        """`start_timeout` in seconds."""
        return parse_time(self.start_timeout)

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most workers that the pool may have; equal where their number is fixed."""
        fewest = self.initial_workers if self.min_workers is None else self.min_workers
        return fewest, self.workers if self.max_workers is None else self.max_workers

    @property
    def initial_workers(self) -> int:
        """The workers that `serve` starts: those of a backfill pool are started when there is work for them."""
        return 0 if self.backfill else self.workers

    @property
    def layout(self) -> Layout:
        """How the ranks of one worker lie on its nodes; of several in a job, on its share of the job's node."""
        sharing = self.workers_per_job if isinstance(self.workers_per_job, int) else 1
        return Layout(
            tensor_parallel=self.tensor_parallel,
            sequence_parallel=self.sequence_parallel,
            pipeline_parallel=self.pipeline_parallel,
            gpus_per_node=self.gpus_per_node // sharing,
            cpus_per_task=self.cpus_per_task // sharing,
            nodes=self.nodes,
        )
