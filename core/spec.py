"""The deployment spec: what a user asks for, in TOML, typed and frozen.

Unknown keys and invalid values are SpecErrors that name the key, the value and what is valid.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from .errors import SpecError
from .job import is_variable
from .layout import Layout
from .toml import Section, dump_toml, parse_toml, read_toml

# Bounds far above what there is: a larger number is a mistake, and would cost minutes and gigabytes until it fails.
Nodes = Annotated[int, Meta(ge=1, le=10_000)]
Cpus = Annotated[int, Meta(ge=1, le=65_536)]
Gpus = Annotated[int, Meta(ge=0, le=64)]
Ranks = Annotated[int, Meta(ge=1, le=65_536)]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Requests = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[int, Meta(ge=0, le=365 * 86_400)]
Option = str | int | bool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "expected letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 63 in all"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
_MEM = re.compile(r"\d{1,15}[KMGT]?", re.ASCII)
# Shell code, words of a command line, and variables may have newlines; in what becomes an option of sbatch they would
# end its line.
_SEVERAL_LINES = re.compile(r"(?:^|\.)(?:(?:setup|extra_args)\[\d+\]|env\.[^.]*)$")
_LONGEST_TIME_S = 366 * 86_400
_MOST_WORKERS = 10_000
_SBATCH_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*", re.ASCII)
# Keys of [router] that sglang-router cannot obey, and policies that it does not have.
_NATIVE_ROUTER_ONLY = (
    "relays", "overcommit", "reserved", "retry_budget", "hedge_after", "tls", "tls_certificate", "tls_key", "rule",
    "access_log", "pending_connections",
)  # fmt: skip
_SGLANG_POLICIES = ("cache_aware", "power_of_two", "round_robin")
# Keys of our own for what these sbatch options say; naming both would leave it open which one counts.
_OWN_SBATCH = {
    "nodes": "nodes", "partition": "partition", "account": "account", "time": "time", "mem": "mem",
    "cpus-per-task": "cpus_per_task", "gpus-per-node": "gpus_per_node", "signal": "drain_seconds",
    "job-name": "name", "output": "the run directory's logs/", "error": "the run directory's logs/",
}  # fmt: skip


class ModelSpec(Section, frozen=True, kw_only=True):
    """`[model]`: the model to serve. A pool may have one of its own in `[pool.model]`."""

    # A model directory, a .gguf file, a Hugging Face id such as "org/name", or "demo" (SmolLM2-135M-Instruct). What is
    # not on the cluster's filesystem yet is fetched or converted before any job is submitted.
    path: str
    # What clients call the model. By default the Hugging Face id, or else the name of the model's directory.
    name: str = ""
    # What the model is computed in. auto: the engine chooses; native takes bfloat16 on GPUs and on CPUs with
    # instructions for it, else float32.
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    # What the KV cache is stored in; smaller types hold more tokens in the same memory. auto: as `dtype`. The other
    # values depend on the engine: int8 and int4 with native; fp8_e5m2, fp8_e4m3 and further ones with sglang and vllm,
    # some of them on certain GPUs only. A value that the engine does not know is refused with those that it does.
    kv_cache_dtype: str = "auto"
    # Tokens of the longest sequence, prompt and answer together. By default what the model was trained for.
    context_length: Tokens | None = None
    # native: which format the weights must be in (awq, gptq, fp8, compressed-tensors or gguf), so that a model of
    # another format is refused; gguf also makes it compute with a .gguf file's own quantized blocks instead of
    # converting them to 16 bits. sglang, vllm: the value of their option --quantization. By default the engine computes
    # with the weights as the model directory has them.
    quantization: str | None = None

    @property
    def served_name(self) -> str:
        """The name by which clients ask for the model."""
        return self.name or Path(self.path).name.removesuffix(".gguf")


class SpeculativeSpec(Section, frozen=True, kw_only=True):
    """`[speculative]`: guess several tokens ahead and check them in one step. Answers stay what they are.

    Without this section nothing is guessed.
    """

    # How tokens are guessed. ngram: looked up in the text so far. draft: by a smaller model with the same tokenizer.
    # eagle, eagle3 (not with native): by a small head that was trained for the model (arXiv 2401.15077, 2503.01840).
    method: Literal["ngram", "draft", "eagle", "eagle3"] = "ngram"
    # The smaller model or the head, written as `path` of [model]. Needed by all methods but ngram, which has none.
    draft_model: str | None = None
    # Tokens guessed for each sequence in one step. native guesses fewer where that is faster, and at most 15.
    draft_tokens: Annotated[int, Meta(ge=1, le=1_000)] = 8

    @property
    def is_head(self) -> bool:
        """Whether what guesses is part of a model, without a tokenizer of its own."""
        return self.method in ("eagle", "eagle3")


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
    # script, which administrators of the cluster see; secrets belong into `env`.
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


class PoolSpec(JobSection, frozen=True, kw_only=True):
    """`[[pool]]`: identical workers, each a Slurm job of its own. A spec has one such section or several."""

    # Name of the pool, different for every pool; its workers are called NAME-0, NAME-1 and so on. Letters, digits, '.',
    # '_' and '-', at most 63, beginning with a letter or digit.
    name: str = "workers"
    # The program that computes: native (slurminfer's own, on CPUs and GPUs), sglang or vllm. The latter two must be
    # installed in the environment of `python`.
    engine: str = "native"
    # Workers that are started, each with the whole model. The router spreads requests over them.
    workers: Annotated[int, Meta(ge=1, le=10_000)] = 1
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
    # GPUs on each node (sbatch --gpus-per-node). 0: the worker computes on CPUs.
    gpus_per_node: Gpus = 0
    # Walltime limit of each worker (sbatch --time): MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. A worker that
    # reaches it goes back to Slurm's queue under the same job id, and serves again when it is started again.
    time: str = "01:00:00"
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
    # Path of the Python interpreter that starts the engine, in the environment that holds it. By default slurminfer's.
    python: str | None = None
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
    def start_timeout_s(self) -> int:
        """`start_timeout` in seconds."""
        return parse_time(self.start_timeout)

    @property
    def layout(self) -> Layout:
        """How the ranks of one worker lie on its nodes."""
        return Layout(
            tensor_parallel=self.tensor_parallel,
            sequence_parallel=self.sequence_parallel,
            pipeline_parallel=self.pipeline_parallel,
            gpus_per_node=self.gpus_per_node,
            cpus_per_task=self.cpus_per_task,
            nodes=self.nodes,
        )


class RuleSpec(Section, frozen=True, kw_only=True):
    """`[[router.rule]]`: which requests go to which pools. A rule fits if all of its conditions do."""

    # Condition: the name that the request asks for, such as an alias that no worker serves.
    model: str | None = None
    # Condition: the prompt has at least so many tokens, as estimated from its bytes.
    min_prompt_tokens: Tokens | None = None
    # Condition: the prompt has at most so many tokens, as estimated from its bytes.
    max_prompt_tokens: Tokens | None = None
    # Condition: the request shows the key of this tenant (`slurminfer keys`); `owner` is the deployment's own key.
    tenant: str | None = None
    # Pools that such requests may go to. By default all of the model. A rule has `pools`, `serve` or both.
    pools: tuple[str, ...] = ()
    # The model that such requests get, by the name that a pool serves it with. By default the one they ask for.
    serve: str | None = None


class RouterSpec(JobSection, frozen=True, kw_only=True):
    """`[router]`: the HTTP endpoint that clients talk to, which runs in a small Slurm job of its own."""

    # TCP port of the endpoint, on the node of the router's job. 0: any free one, which `slurminfer status` shows.
    port: Annotated[int, Meta(ge=0, le=65535)] = 30000
    # Processes that carry requests, all on the same port. By default as many as `cpus_per_task`.
    relays: Annotated[int, Meta(ge=1, le=64)] | None = None
    # The program that carries requests. native: slurminfer's own router. sglang: sglang-router, the Rust router of the
    # SGLang project, which must be installed in the environment of `python`; it gets workers added and removed as they
    # come and go, and knows neither tenants nor walltimes. Keys that it cannot obey are refused.
    backend: Literal["native", "sglang"] = "native"
    # Path of the Python interpreter that starts the router, only for backend = "sglang". By default slurminfer's.
    python: str | None = None
    # How the router chooses the worker of a request.
    # cache_aware: weighs the part of the prompt that a worker has in its KV cache against how long the request would
    # wait there. least_load: the fewest requests in flight, compared to what the worker computes at once.
    # power_of_two: the less loaded one of two random workers. session: requests of the same session (the header
    # X-Session-Id, or the field `user`) go to the same worker as long as it is not overloaded. round_robin: in turns.
    policy: Literal["cache_aware", "least_load", "power_of_two", "session", "round_robin"] = "cache_aware"
    # Requests in flight at a worker, relative to what it computes at once; the others wait in the router, where
    # priorities count. Above 1 the engine always has a next request at hand.
    overcommit: Annotated[float, Meta(ge=1, le=100)] = 1.25
    # Requests of one priority and model that may wait in the router; if there are more, the tenant with most of them is
    # refused with 429. They are divided among the relays.
    queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 16_384
    # Seconds that a request may wait in the router before it is refused with 503.
    queue_timeout: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    # Part of all requests in flight that only requests of priority `interactive` may use. Those that show the
    # deployment's own key are of this priority.
    reserved: Annotated[float, Meta(ge=0, le=0.9)] = 0.1
    # Whether another worker goes on with an answer whose worker is lost after it has begun. Without this, a stream
    # ends with an error event.
    failover: bool = True
    # Further attempts that requests may make, relative to the requests that there are: a bound, so that a fault of all
    # workers does not multiply the load. Each relay may always make 10 in 10 seconds.
    retry_budget: Annotated[float, Meta(ge=0, le=10)] = 0.2
    # Seconds after which a streaming request without a first token is sent to a second worker too; the faster one
    # answers. By default this is never done.
    hedge_after: Annotated[float, Meta(gt=0, le=3_600)] | None = None
    # What clients speak to the router. off: HTTP. self_signed: HTTPS with a certificate that the router makes at its
    # first start, whose SHA-256 fingerprint `slurminfer status` shows. files: HTTPS with the certificate and key of
    # `tls_certificate` and `tls_key`.
    tls: Literal["off", "self_signed", "files"] = "off"
    # Path of the certificate, PEM, followed by its chain. Needed for tls = "files", refused otherwise.
    tls_certificate: str | None = None
    # Path of the certificate's private key, PEM. Needed for tls = "files", refused otherwise.
    tls_key: str | None = None
    # Rules by which requests go to certain pools or get another model. The first that fits counts; a request that none
    # fits may go to every pool of its model.
    rule: tuple[RuleSpec, ...] = ()
    # Walltime limit of the router's job (sbatch --time), written as that of a pool. By default that of the pool with
    # the longest.
    time: str | None = None
    # Whether the router writes a line of JSON into its log for each finished request: id, tenant, model, worker,
    # status, tokens and times. Prompts, answers and keys are never logged.
    access_log: bool = False
    # Origins of web pages that may use the endpoint, such as "https://chat.example.org" (browsers enforce this: CORS).
    # * stands for any characters, so ["*"] allows all. By default pages that this machine itself serves. A page needs
    # the API key whatever stands here.
    allowed_origins: tuple[str, ...] = ("http://localhost:*", "http://127.0.0.1:*")
    # Connections from one address that have not shown the API key yet; if there are more, the oldest is closed. Clients
    # show it as soon as they are connected, so this matters only where very many behind one address (a login node, a
    # NAT) connect at the same moment. By default half of all connections that the router can have open.
    pending_connections: Annotated[int, Meta(ge=1, le=65_536)] | None = None


class DeploymentSpec(Section, frozen=True, kw_only=True):
    """A spec file: one deployment, which is one HTTP endpoint with the workers behind it."""

    # Name of the deployment, for `slurminfer status NAME` and the others; Slurm's job names begin with it. Letters,
    # digits, '.', '_' and '-', at most 63, beginning with a letter or digit.
    name: str
    # The model of all pools that have none of their own. May be left out where every pool has one.
    model: ModelSpec | None = None
    # The workers: at least one [[pool]].
    pool: tuple[PoolSpec, ...]
    # The endpoint; without this section it has the defaults of all its keys.
    router: RouterSpec = RouterSpec()
    # Speculative decoding in all pools; without this section there is none.
    speculative: SpeculativeSpec | None = None

    @property
    def router_time_s(self) -> int:
        """The walltime limit of the router's job in seconds."""
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
    spec = parse_toml(text, DeploymentSpec, _SEVERAL_LINES)
    _check(spec)
    return spec


def dump_spec(spec: DeploymentSpec) -> str:
    """The spec as TOML; `parse_spec(dump_spec(spec)) == spec`."""
    return dump_toml(spec)


def load_job(path: Path) -> JobSpec:
    """Read and check the file of a single job. Raises SpecError."""
    job = parse_toml(read_toml(path), JobSpec, _SEVERAL_LINES)
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
    total = sum(pool.workers for pool in spec.pool)
    if total > _MOST_WORKERS:
        raise SpecError("pool", f"{total} workers in all", f"expected at most {_MOST_WORKERS}")
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
        _check_env(f"{key}.env", pool.env)
        if pool.drain_seconds >= pool.time_s:
            raise SpecError(f"{key}.drain_seconds", pool.drain_seconds, f"expected less than time = {pool.time}")
        if pool.model is None and spec.model is None:
            raise SpecError("model", None, f"missing; expected [model], or {key}.model")
    _check_tls(spec.router)
    _check_backend(spec)
    _check_rules(spec)
    _check_spill_over(spec)


def _check_job(key: str, job: PoolSpec | RouterSpec | JobSpec) -> None:
    prefix = f"{key}." if key else ""
    if job.time is not None:
        _check_time(f"{prefix}time", job.time)
    if job.mem is not None and not _MEM.fullmatch(job.mem):
        raise SpecError(f"{prefix}mem", job.mem, "expected a number with K, M, G or T, such as '64G'")
    for option in job.slurm:
        if not _SBATCH_OPTION.fullmatch(option):
            raise SpecError(f"{prefix}slurm.{option}", job.slurm[option], "expected the long name of an sbatch option")
        own = _OWN_SBATCH.get(option.replace("_", "-"))
        if own:
            raise SpecError(f"{prefix}slurm.{option}", job.slurm[option], f"say it with {own}, beside slurm")


def _check_env(key: str, env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not is_variable(name):
            expected = "expected letters, digits or '_' as the variable's name, not beginning with a digit"
            raise SpecError(f"{key}.{name}", value, expected)


def _check_name(key: str, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise SpecError(key, value, _NAME_RULE)


def _check_time(key: str, value: str) -> None:
    try:
        seconds = parse_time(value)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST_TIME_S:
        expected = "expected a Slurm time such as '30', '04:00:00' or '2-00:00:00', of at most a year"
        raise SpecError(key, value, expected)


def _check_speculative(speculative: SpeculativeSpec) -> None:
    method, draft = speculative.method, speculative.draft_model
    if method != "ngram" and draft is None:
        what = "smaller model" if method == "draft" else "head"
        raise SpecError("speculative.draft_model", None, f"expected the {what} that method '{method}' guesses with")
    if method == "ngram" and draft is not None:
        raise SpecError("speculative.draft_model", draft, "expected no model with method 'ngram'")


def _check_tls(router: RouterSpec) -> None:
    for key in ("tls_certificate", "tls_key"):
        path = getattr(router, key)
        if router.tls == "files" and not path:
            raise SpecError(f"router.{key}", path, "missing; tls = 'files' needs tls_certificate and tls_key")
        if router.tls != "files" and path is not None:
            raise SpecError(f"router.{key}", path, f"expected only with tls = 'files', not with '{router.tls}'")


def _check_backend(spec: DeploymentSpec) -> None:
    router, usual = spec.router, RouterSpec()
    if router.backend == "native":
        if router.python is not None:
            raise SpecError("router.python", router.python, "expected only with backend = 'sglang'")
        return
    for key in _NATIVE_ROUTER_ONLY:
        value = getattr(router, key)
        if value != getattr(usual, key):
            given = f"{len(value)} rules" if key == "rule" else value
            refused = ", ".join(_NATIVE_ROUTER_ONLY)
            raise SpecError(f"router.{key}", given, f"backend = 'sglang' cannot obey this key, nor any of: {refused}")
    if router.allowed_origins != usual.allowed_origins:
        _check_exact_origins(router.allowed_origins)
    if router.policy not in _SGLANG_POLICIES:
        expected = f"expected one of these with backend = 'sglang': {', '.join(_SGLANG_POLICIES)}"
        raise SpecError("router.policy", router.policy, expected)
    if len(names := _served_names(spec)) > 1:
        raise SpecError("router.backend", router.backend, f"expected native for several models: {', '.join(names)}")
    for index, pool in enumerate(spec.pool):
        if pool.spill_after is not None:
            raise SpecError(f"pool[{index}].spill_after", pool.spill_after, "backend = 'sglang' cannot obey this key")


def _check_exact_origins(origins: tuple[str, ...]) -> None:
    if not origins or any("*" in origin for origin in origins):
        expected = "expected origins without *, at least one: backend = 'sglang' compares them as they are"
        raise SpecError("router.allowed_origins", list(origins), expected)


def _check_rules(spec: DeploymentSpec) -> None:
    for index, rule in enumerate(spec.router.rule):
        key = f"router.rule[{index}]"
        _check_conditions(key, rule)
        if not rule.pools and rule.serve is None:
            raise SpecError(key, None, "expected pools, serve or both: what is to be done with requests that fit")
        _check_targets(key, rule, spec)


def _check_conditions(key: str, rule: RuleSpec) -> None:
    least, most = rule.min_prompt_tokens, rule.max_prompt_tokens
    if all(condition is None for condition in (rule.model, least, most, rule.tenant)):
        expected = "expected at least one condition: model, min_prompt_tokens, max_prompt_tokens or tenant"
        raise SpecError(key, None, expected)
    if least is not None and most is not None and least > most:
        raise SpecError(f"{key}.min_prompt_tokens", least, f"expected at most max_prompt_tokens = {most}")
    if rule.tenant is not None:
        _check_name(f"{key}.tenant", rule.tenant)


def _check_targets(key: str, rule: RuleSpec, spec: DeploymentSpec) -> None:
    """Whether the pools and the model that a rule leads to are there, and belong together."""
    pools = {pool.name: pool for pool in spec.pool}
    for place, name in enumerate(rule.pools):
        if name not in pools:
            raise SpecError(f"{key}.pools[{place}]", name, f"expected names of pools: {', '.join(pools)}")
    served = _served_names(spec)
    if rule.serve is not None and rule.serve not in served:
        raise SpecError(f"{key}.serve", rule.serve, f"expected a model that a pool serves: {', '.join(served)}")
    wanted = rule.serve or rule.model
    if wanted is None:
        return
    if wanted not in served:
        expected = f"no pool serves it: expected serve = ..., one of {', '.join(served)}"
        raise SpecError(f"{key}.model", wanted, expected)
    if rule.pools and wanted not in [spec.model_of(pools[name]).served_name for name in rule.pools]:
        raise SpecError(f"{key}.pools", list(rule.pools), f"none of them serves the model {wanted!r}")


def _check_spill_over(spec: DeploymentSpec) -> None:
    first = {spec.model_of(pool).served_name for pool in spec.pool if pool.spill_after is None}
    for index, pool in enumerate(spec.pool):
        name = spec.model_of(pool).served_name
        if name not in first:
            expected = f"expected a pool of {name!r} without this key, from which requests spill over"
            raise SpecError(f"pool[{index}].spill_after", pool.spill_after, expected)


def _served_names(spec: DeploymentSpec) -> list[str]:
    """The names of all models, each once."""
    return list(dict.fromkeys(spec.model_of(pool).served_name for pool in spec.pool))
