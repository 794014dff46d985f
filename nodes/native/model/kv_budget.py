"""How much memory the KV cache may take, and how many blocks fit into it."""

import math

import torch

from ....core.errors import EngineError
from ....core.machine.memory import available_bytes, own_bytes
from ....core.slurm_env import workers_of_job
from ....quant.checkpoint.config import ModelConfig
from ....quant.kv import KVFormat, vector_bytes
from ..options import EngineOptions
from .logits_budget import logits_budget

GIB = 1 << 30
_SHARED_GIB = 4.0


def block_bytes(config: ModelConfig, block_size: int, format: KVFormat) -> int:
    """Bytes that one block takes over all layers, scales included."""
    return config.num_layers * 2 * config.num_kv_heads * block_size * vector_bytes(format)


def budget_bytes(kv_cache_gib: float | None, device: torch.device, reserved: int, sharing: int = 1) -> int:
    """Bytes that the KV cache of this process may take.

    - With `kv_cache_gib` (GiB): so much, for each process.
    - On a GPU: 80% of the memory that is free on it.
    - In a job whose memory is limited: 80% of what the job has left on this node, divided by the `sharing` processes
      of this node, less `reserved` bytes.
    - Else (a local worker, or no limit): a quarter of what is available, 4 GiB at most, divided by `sharing`.

    Where several workers share the job, their processes are among those that share its memory.
    """
    if kv_cache_gib is not None:
        return int(kv_cache_gib * GIB)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    sharing *= workers_of_job()
    own = own_bytes()
    if own is None:
        return min(int(_SHARED_GIB * GIB), available_bytes() // 4) // sharing
    return int(max(own // sharing - reserved, 0) * 0.8)


def step_bytes(config: ModelConfig, options: EngineOptions) -> int:
    """About how many bytes the largest step needs beside weights and KV cache.

    An estimate: for each token twice the float32 results of a layer's operations, four copies of each row of
    logits that is sampled. Those for log-probabilities of prompts take their place, see LogitsBudget.
    """
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    of_token = 2 * (4 * config.hidden_size + 2 * heads + 3 * config.intermediate_size)
    rows = logits_budget(options, config.vocab_size).rows
    return 4 * (options.max_batch_tokens * of_token + 4 * rows * config.vocab_size)


def count_blocks(
    config: ModelConfig,
    context_length: int,
    block_size: int,
    format: KVFormat,
    budget: int,
    beside: int = 0,
    ranks: int = 1,
) -> int:
    """How many blocks of `block_size` tokens `budget` bytes hold.

    Args:
        context_length: tokens of the longest sequence that must fit.
        beside: bytes that each block takes in another cache out of the same budget, that of a draft model.
        ranks: how many sequence ranks, with equal budgets, share the blocks of every sequence.

    Raises EngineError if one sequence of `context_length` tokens does not fit; it says what would make it fit.
    """
    size = block_bytes(config, block_size, format) + beside
    needed = -(-context_length // (block_size * ranks))
    if budget // size < needed:
        where = f"the KV cache of {budget / GIB:.2f} GiB"
        if ranks > 1:
            where = f"the KV caches of {ranks} sequence ranks, {budget / GIB:.2f} GiB each,"
        raise EngineError(
            f"{where} hold{'s' * (ranks == 1)} {budget // size * ranks * block_size} tokens, but one sequence may "
            f"have {context_length}: give the job more memory, set --kv-cache-gib to {_round_up(needed * size)} "
            "or more, raise sequence_parallel, or lower context_length"
        )
    return budget // size


def _round_up(size: int) -> float:
    """GiB with two digits, not less than `size` bytes."""
    return math.ceil(size / GIB * 100) / 100
