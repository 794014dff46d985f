"""The deployment spec: what a user asks for, in TOML, typed and frozen.

Unknown keys and invalid values are SpecErrors that name the key, the value and what is valid.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from .errors import SpecError
from .layout import Layout
from .toml import Section, dump_toml, parse_toml, read_toml

Positive = Annotated[int, Meta(ge=1)]
Option = str | int | bool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "expected letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 63 in all"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEM = re.compile(r"\d+[KMGT]?")
# Keys of our own for what these sbatch options say; naming both would leave it open which one counts.
_OWN_SBATCH = {
    "nodes": "nodes", "partition": "partition", "account": "account", "time": "time", "mem": "mem",
    "cpus-per-task": "cpus_per_task", "gpus-per-node": "gpus_per_node", "signal": "drain_seconds",
    "job-name": "name", "output": "the run directory's logs/", "error": "the run directory's logs/",
}  # fmt: skip


class ModelSpec(Section, frozen=True, kw_only=True):
    """`[model]`"""

    path: str  # hub id, directory, GGUF file, or "demo"
    name: str = ""  # what clients call it; by default the last part of `path`
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_dtype: str = "auto"  # auto: as computed; else the engine's word, such as int8 or fp8_e4m3
    context_length: Positive | None = None  # by default what the model was trained for
    quantization: str | None = None  # native: what the model must be, by default whatever it is; others: their flag

    @property
    def served_name(self) -> str:
        return self.name or Path(self.path).name.removesuffix(".gguf")


class SpeculativeSpec(Section, frozen=True, kw_only=True):
    """`[speculative]`: tokens are guessed and several checked in one step. The answer stays what it is."""

    # Looked up in the text so far, by a smaller model with the same tokenizer, or by a head that was trained to go on
    # from what the model has computed (EAGLE, arXiv 2401.15077; EAGLE-3, arXiv 2503.01840), which native has not.
    method: Literal["ngram", "draft", "eagle", "eagle3"] = "ngram"
    draft_model: str | None = None  # the smaller model or the head, as `path` of [model]
    draft_tokens: Positive = 8  # guessed in a step for each sequence; native: at most

    @property
    def is_head(self) -> bool:
        """Whether what guesses is part of a model, without a tokenizer of its own."""
        return self.method in ("eagle", "eagle3")


class JobSection(Section, frozen=True, kw_only=True):
    """What is said of every kind of Slurm job."""

    partition: str | None = None
    account: str | None = None
    cpus_per_task: Positive = 1
    mem: str | None = None  # per node
    setup: tuple[str, ...] = ()  # shell lines before the program starts, such as "module load cuda"
    slurm: dict[str, Option] = field(default_factory=dict)  # further sbatch options, as they are


class JobSpec(JobSection, frozen=True, kw_only=True):
    """A file of its own: a job that does one thing and ends."""

    nodes: Positive = 1
    gpus_per_node: Annotated[int, Meta(ge=0)] = 0
    time: str = "01:00:00"

    @property
    def time_s(self) -> int:
        return parse_time(self.time)


class PoolSpec(JobSection, frozen=True, kw_only=True):
    """`[[pool]]`: identical workers, each one Slurm job."""

    name: str = "workers"
    engine: str = "native"
    workers: Positive = 1
    nodes: Positive = 1  # per worker
    tensor_parallel: Positive = 1
    sequence_parallel: Positive = 1
    pipeline_parallel: Positive = 1
    gpus_per_node: Annotated[int, Meta(ge=0)] = 0
    time: str = "01:00:00"
    drain_seconds: Annotated[int, Meta(ge=0)] = 60  # before the walltime limit, to finish what is in flight
    start_timeout: str = "01:00:00"  # until a real token must have come out
    max_running_requests: Positive | None = None  # per worker; the engine's own default if not given
    python: str | None = None  # interpreter of the environment that holds the engine; by default slurminfer's own
    extra_args: tuple[str, ...] = ()  # to the engine, as they are
    env: dict[str, str] = field(default_factory=dict)
    model: ModelSpec | None = None  # by default that of [model]

    @property
    def time_s(self) -> int:
        return parse_time(self.time)

    @property
    def start_timeout_s(self) -> int:
        return parse_time(self.start_timeout)

    @property
    def layout(self) -> Layout:
        return Layout(
            tensor_parallel=self.tensor_parallel,
            sequence_parallel=self.sequence_parallel,
            pipeline_parallel=self.pipeline_parallel,
            gpus_per_node=self.gpus_per_node,
            cpus_per_task=self.cpus_per_task,
            nodes=self.nodes,
        )


class RouterSpec(JobSection, frozen=True, kw_only=True):
    """`[router]`: the one HTTP endpoint, a small job of its own."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 30000  # 0: any free one
    policy: Literal["least_loaded"] = "least_loaded"
    time: str | None = None  # by default as long as the longest pool


class DeploymentSpec(Section, frozen=True, kw_only=True):
    """A whole spec file."""

    name: str
    model: ModelSpec | None = None  # of the pools that have none of their own
    pool: tuple[PoolSpec, ...]
    router: RouterSpec = RouterSpec()
    speculative: SpeculativeSpec | None = None

    @property
    def router_time_s(self) -> int:
        if self.router.time is not None:
            return parse_time(self.router.time)
        return max(pool.time_s for pool in self.pool)

    def slots(self) -> list[PoolSpec]:
        """The pool of every worker that the spec asks for, pool after pool. A slot is an index into this list."""
        return [pool for pool in self.pool for _ in range(pool.workers)]

    def pool_of(self, worker_id: str) -> PoolSpec:
        """The pool of the worker POOL-SERIAL. Raises SpecError for an id that no worker of this spec can have."""
        name, _, serial = worker_id.rpartition("-")
        for pool in self.pool:
            if pool.name == name and serial.isdecimal():
                return pool
        expected = f"expected POOL-SERIAL; pools: {', '.join(pool.name for pool in self.pool)}"
        raise SpecError("worker", worker_id, expected)

    def model_of(self, pool: PoolSpec) -> ModelSpec:
        """The model that a pool's workers serve: its own, else that of [model]."""
        model = pool.model or self.model
        assert model is not None, "checked when the spec was read"
        return model


def load_spec(path: Path) -> DeploymentSpec:
    """Read a spec file and check all of it but what depends on the engines. Raises SpecError."""
    return parse_spec(read_toml(path))


def parse_spec(text: str) -> DeploymentSpec:
    """Parse TOML text and check all of it but what depends on the engines. Raises SpecError.

    Whether an engine of that name exists and can do what its pool asks is checked by `check_engines` of nodes/engines.
    """
    spec = parse_toml(text, DeploymentSpec)
    _check(spec)
    return spec


def dump_spec(spec: DeploymentSpec) -> str:
    """The spec as TOML; `parse_spec(dump_spec(spec)) == spec`."""
    return dump_toml(spec)


def load_job(path: Path) -> JobSpec:
    """Read and check the file of a single job. Raises SpecError."""
    job = parse_toml(read_toml(path), JobSpec)
    check_job(job)
    return job


def check_job(job: JobSpec) -> None:
    """Raise SpecError for a value that cannot be."""
    _check_job("", job)


def parse_time(text: str) -> int:
    """Seconds of a Slurm time: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a Slurm time: {text!r}")
    days, *rest = (int(part) if part else None for part in match.groups())
    if days is not None or rest[2] is not None:
        hours, minutes, seconds = (part or 0 for part in rest)
    else:
        hours, minutes, seconds = 0, rest[0] or 0, rest[1] or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _check(spec: DeploymentSpec) -> None:
    _check_name("name", spec.name)
    if not spec.pool:
        raise SpecError("pool", None, "expected at least one [[pool]]")
    _check_job("router", spec.router)
    if spec.speculative is not None:
        _check_speculative(spec.speculative)
    for index, pool in enumerate(spec.pool):
        key = f"pool[{index}]"
        _check_name(f"{key}.name", pool.name)
        if pool.name in {other.name for other in spec.pool[:index]}:
            raise SpecError(f"{key}.name", pool.name, "expected a name of its own for every pool")
        _check_job(key, pool)
        _check_time(f"{key}.start_timeout", pool.start_timeout)
        if pool.drain_seconds >= pool.time_s:
            raise SpecError(f"{key}.drain_seconds", pool.drain_seconds, f"expected less than time = {pool.time}")
        if pool.model is None and spec.model is None:
            raise SpecError("model", None, f"missing; expected [model], or {key}.model")


def _check_job(key: str, job: PoolSpec | RouterSpec | JobSpec) -> None:
    prefix = f"{key}." if key else ""
    if job.time is not None:
        _check_time(f"{prefix}time", job.time)
    if job.mem is not None and not _MEM.fullmatch(job.mem):
        raise SpecError(f"{prefix}mem", job.mem, "expected a number with K, M, G or T, such as '64G'")
    for option in job.slurm:
        own = _OWN_SBATCH.get(option.replace("_", "-"))
        if own:
            raise SpecError(f"{prefix}slurm.{option}", job.slurm[option], f"say it with {own}, beside slurm")


def _check_name(key: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise SpecError(key, value, _NAME_RULE)


def _check_time(key: str, value: str) -> None:
    try:
        seconds = parse_time(value)
    except ValueError:
        seconds = 0
    if seconds <= 0:
        raise SpecError(key, value, "expected a Slurm time such as '30', '04:00:00' or '2-00:00:00'")


def _check_speculative(speculative: SpeculativeSpec) -> None:
    method, draft = speculative.method, speculative.draft_model
    if method != "ngram" and draft is None:
        what = "smaller model" if method == "draft" else "head"
        raise SpecError("speculative.draft_model", None, f"expected the {what} that method '{method}' guesses with")
    if method == "ngram" and draft is not None:
        raise SpecError("speculative.draft_model", draft, "expected no model with method 'ngram'")
