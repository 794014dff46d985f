"""What the native engine can be told. The command line takes its flags and defaults from here."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

from ...core.errors import UsageError
from ...core.sizes import KVCacheDtype
from ...core.workers.parallel import ParallelDegrees

API_KEY_VARIABLE = "SLURMINFER_API_KEY"  # of the environment; no command line may say it
RANK_SECRET_VARIABLE = "SLURMINFER_RANK_SECRET"  # likewise: what all ranks of one worker know, and nobody else
SECRET_VARIABLES = (API_KEY_VARIABLE, RANK_SECRET_VARIABLE)  # which no process inherits that is not a rank

MAX_DRAFT_TOKENS = 15  # guesses further ahead are seldom right

DEFAULT_PORT = 8000
_LONGEST_SILENCE_S = 3600

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantization = Literal["awq", "gptq", "fp8", "compressed-tensors", "gguf"]  # read besides unquantized weights
Device = Literal["auto", "cpu", "cuda"]
KernelChoice = Literal["auto", "compiled", "torch", "exact"]
Speculative = Literal["none", "ngram", "draft"]
HeadChoice = Literal["auto", "int8", "dense"]
ToolParser = Literal[
    "auto", "none", "hermes", "llama", "mistral", "deepseek", "kimi", "qwen_coder", "seed", "glm", "minimax",
    "granite", "nemotron", "hunyuan", "cohere", "harmony", "gemma", "function_gemma", "lfm2", "olmo3", "dsml",
    "internlm", "longcat", "tool_code", "pythonic",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of one engine process; None leaves a value to what the model and the machine have.

    Raises UsageError for a value that cannot be.
    """

    model: Path
    dtype: Dtype = "auto"
    device: Device = "auto"
    quantization: Quantization | None = None  # refuse a model of another kind
    kernels: KernelChoice = "auto"  # of quantized linear layers, see linears/choice.py and fused/
    lm_head: HeadChoice = "auto"
    context_length: int | None = None
    kv_cache_gib: float | None = None
    kv_cache_dtype: KVCacheDtype = "auto"  # auto: dtype
    block_size: int = 16
    max_running_requests: int = 64
    max_batch_tokens: int = 1024
    cuda_graphs: Literal["on", "off"] = "on"  # on a GPU: steps that only decode are recorded, and launched whole
    age_weight: float = 1000.0  # tokens of a longer prompt that a second of waiting makes up for
    target_itl_ms: float = 200.0  # between two tokens of a sequence while prompts are computed beside; 0: no target
    threads: int | None = None
    speculative: Speculative = "none"
    draft_model: Path | None = None
    draft_tokens: int = 8  # guessed for a sequence in a step, at most

    def __post_init__(self) -> None:
        for name in ("context_length", "block_size", "max_running_requests", "max_batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} = {value}: expected at least 1")
        if self.kv_cache_gib is not None and not self.kv_cache_gib > 0:
            raise UsageError(f"kv_cache_gib = {self.kv_cache_gib}: expected more than 0")
        if not self.age_weight > 0:
            raise UsageError(
                f"age_weight = {self.age_weight}: expected more than 0, or inf for first come, first served"
            )
        if not 0 <= self.target_itl_ms < inf:
            raise UsageError(f"target_itl_ms = {self.target_itl_ms}: expected 0 for no target, or more")
        if not 1 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise UsageError(f"draft_tokens = {self.draft_tokens}: expected 1 to {MAX_DRAFT_TOKENS}")
        if (self.speculative == "draft") != (self.draft_model is not None):
            raise UsageError(
                f"draft_model = {self.draft_model}, speculative = '{self.speculative}': expected a draft model exactly "
                "where speculative = 'draft'"
            )
        if self.max_batch_tokens < self.max_running_requests:
            needed = f"at least max_running_requests = {self.max_running_requests}, one token for each in a step"
            raise UsageError(f"max_batch_tokens = {self.max_batch_tokens}: expected {needed}")


@dataclass(frozen=True, kw_only=True)
class ParallelOptions(ParallelDegrees):
    """Which of the processes that compute the model together this is. Raises UsageError for a place that cannot be."""

    nodes: int = 1
    node_rank: int = 0
    local_rank: int = 0
    rendezvous: str | None = None  # HOST:PORT, where rank 0 listens
    rank_cpus: str | None = None  # of each rank here, as "0-31|32-63"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes < 1:
            raise UsageError(f"nodes = {self.nodes}: expected at least 1")
        if self.ranks % self.nodes:
            raise UsageError(f"nodes = {self.nodes}: expected a divisor of the {self.ranks} ranks")
        for name, count in (("node_rank", self.nodes), ("local_rank", self.ranks_here)):
            if not 0 <= getattr(self, name) < count:
                raise UsageError(f"{name} = {getattr(self, name)}: expected 0 to {count - 1}")
        if self.rendezvous is None and self.nodes > 1:
            raise UsageError("rendezvous is missing: expected HOST:PORT of node 0, where nodes are several")
        if self.rank_cpus is not None and self.rank_cpus.count("|") + 1 != self.ranks_here:
            raise UsageError(f"rank_cpus = {self.rank_cpus}: expected CPUs of {self.ranks_here} ranks, as 0-31|32-63")
        if self.rendezvous is not None and not self.rendezvous.rpartition(":")[2].isdigit():
            raise UsageError(f"rendezvous = {self.rendezvous!r}: expected HOST:PORT")

    @property
    def ranks_here(self) -> int:
        """On this node."""
        return self.ranks // self.nodes

    @property
    def rank(self) -> int:
        """(stage * sequence_parallel + sequence rank) * tensor_parallel + tensor rank"""
        return self.node_rank * self.ranks_here + self.local_rank

    @property
    def stage(self) -> int:
        return self.rank // self.stage_ranks

    @property
    def tensor_groups(self) -> list[range]:
        """Those that share each layer, of all stages and sequence ranks."""
        size = self.tensor_parallel
        return [range(first, first + size) for first in range(0, self.ranks, size)]

    @property
    def last_ranks(self) -> range:
        """Those that have a step's logits: the tensor ranks of the last stage's first sequence rank."""
        return self.tensor_groups[-self.sequence_parallel]

    @property
    def sequence_groups(self) -> list[list[int]]:
        """Those that share the tokens, of all stages and tensor ranks."""
        size = self.stage_ranks
        return [self.sequence_ranks(rank) for rank in range(self.ranks) if rank % size < self.tensor_parallel]

    def sequence_ranks(self, rank: int) -> list[int]:
        """Those that share the tokens with `rank`, itself included."""
        size, tensor = self.stage_ranks, self.tensor_parallel
        first = rank // size * size + rank % tensor
        return list(range(first, first + size, tensor))

    @property
    def sequence_rank(self) -> int:
        return self.rank // self.tensor_parallel % self.sequence_parallel

    @property
    def tensor_rank(self) -> int:
        return self.rank % self.tensor_parallel


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Options of the HTTP server in front of the engine. Raises UsageError for a value that cannot be."""

    host: str = "127.0.0.1"
    port: int | None = None  # by default DEFAULT_PORT, or none where there is a Unix socket
    uds: Path | None = None
    served_model_name: str | None = None  # by default the name of the model's directory
    generation_config: Literal["model", "none"] = "model"  # where requests say nothing of sampling
    sse_keep_alive_s: float = 15.0  # without a token; 0: never
    tool_parser: ToolParser = "auto"  # how the model writes calls of tools, see api/tools/families.py
    reasoning_parser: Literal["auto", "none"] = "auto"  # see api/reasoning/tags.py

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port < 2**16:
            raise UsageError(f"port = {self.port}: expected 0 to 65535")
        if not 0 <= self.sse_keep_alive_s <= _LONGEST_SILENCE_S:
            raise UsageError(f"sse_keep_alive_s = {self.sse_keep_alive_s}: expected 0 to {_LONGEST_SILENCE_S}")

    @property
    def tcp_port(self) -> int | None:
        """The TCP port to listen on, 0 for any; None: a Unix socket only."""
        return DEFAULT_PORT if self.port is None and self.uds is None else self.port
