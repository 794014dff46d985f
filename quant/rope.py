"""Rotary position embedding (RoFormer, arXiv 2104.09864) and the scalings that stretch it."""

import math

import torch

from .checkpoint.config import ModelConfig
from .checkpoint.rope_scaling import RopeConfig

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosine and signed sine, see Rope.at


class Rope:
    """Cosine and sine of every position, to rotate queries and keys with.

    Halves are rotated as in the Hugging Face layout: element i pairs with element i + head_dim / 2.
    """

    def __init__(self, config: ModelConfig, positions: int, dtype: torch.dtype, device: torch.device) -> None:
        frequencies, scale = _frequencies(config.rope, config.head_dim)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        cos, sin = angles.cos() * scale, angles.sin() * scale
        # The sign of the rotated half is in the table, so that rotating is one roll.
        self._cos = torch.cat((cos, cos), -1).to(device, dtype)
        self._sin = torch.cat((-sin, sin), -1).to(device, dtype)

    @property
    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and signed sine [positions, head_dim]."""
        return self._cos, self._sin

    def at(self, positions: torch.Tensor) -> Rotation:
        """Cosine and signed sine [n, 1, head_dim] of int64 positions [n]."""
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate heads [n, heads, head_dim] by what `Rope.at` returned."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _frequencies(rope: RopeConfig, head_dim: int) -> tuple[torch.Tensor, float]:
    """Angle per position [head_dim / 2] and the factor on cosine and sine.

    `dynamic` NTK changes nothing up to the model's max_position_embeddings, which bounds the context length here.
    """
    plain = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.type == "linear":
        return plain / rope.factor, 1.0
    if rope.type == "llama3":
        return _llama3(rope, plain), 1.0
    if rope.type == "yarn":
        return _yarn(rope, plain, head_dim), _yarn_attention_factor(rope)
    return plain, 1.0


def _llama3(rope: RopeConfig, plain: torch.Tensor) -> torch.Tensor:
    """Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended."""
    turns = rope.original_max_position * plain / (2 * math.pi)  # over the pretraining context
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return torch.lerp(plain / rope.factor, plain, keep.clamp(0, 1))


def _yarn(rope: RopeConfig, plain: torch.Tensor, head_dim: int) -> torch.Tensor:
    """YaRN (arXiv 2309.00071): as llama3, but blended linearly in the dimension's index."""

    def dimension(turns: float) -> float:
        wave = rope.original_max_position / (turns * 2 * math.pi)
        return head_dim * math.log(wave) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # as in the reference: a step, not a division by zero
    stretch = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return torch.lerp(plain, plain / rope.factor, stretch)


def _yarn_attention_factor(rope: RopeConfig) -> float:
    def magnitude(mscale: float) -> float:
        return 0.1 * mscale * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return magnitude(rope.mscale) / magnitude(rope.mscale_all_dim)
    return magnitude(1.0)
