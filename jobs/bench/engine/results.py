"""What `slurminfer bench engine` finds: the structs that its worker writes and `--json` prints."""

from collections.abc import Sequence
from typing import Any

import msgspec


class DecodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in which each of `batch` sequences of `context` tokens gets a token, or several where guesses are right."""

    batch: int
    context: int
    step_s: float  # median
    step_tokens: float  # mean

    @property
    def tokens_per_s(self) -> float:
        """Tokens/s of all sequences together."""
        return self.step_tokens / self.step_s


class PrefillResult(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, up to its first token."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens/s of the prompt."""
        return self.tokens / self.seconds


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that arrive at random (Poisson), as long as they took."""

    rate: float  # requests/s that arrived
    tokens_per_s: float
    ttft_s: tuple[float, ...]  # time to first token of each request, from its arrival
    itl_s: tuple[float, ...]  # inter-token latencies: between two tokens of a request


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker has measured."""

    dtype: str
    compiled: bool
    load_s: float
    decode: tuple[DecodeResult, ...]
    prefill: tuple[PrefillResult, ...]
    load: LoadResult
    peak_bytes: int
    weight_bytes: int  # that a step of one token reads; 0 where the engine cannot tell
    kv_bytes_per_token: int
    bandwidth: float  # bytes/s that this machine reads from memory


class EngineBench(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints: the figures, with the model and machine that they belong to."""

    date: str
    model: str
    cpu: str
    cpus: int
    options: dict[str, Any]
    measured: Measured

    @property
    def described(self) -> str:
        """The machine and the way of computing, such as "AMD EPYC, 2 CPUs; compiled library, bfloat16"."""
        how = "compiled library" if self.measured.compiled else "PyTorch's operations"
        return f"{self.cpu}, {self.cpus} CPUs; {how}, {self.measured.dtype}"

    def roofline(self, point: DecodeResult) -> float:
        """The share of the memory bandwidth that a decode step reaches, by the weights and the KV cache it reads."""
        read = self.measured.weight_bytes + point.batch * point.context * self.measured.kv_bytes_per_token
        return read / point.step_s / self.measured.bandwidth


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the values that is at least as large as this share of them; 0 without values."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0
