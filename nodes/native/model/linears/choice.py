"""Which kernels of the table a model uses on this machine, by its options."""

import torch

from .....core.errors import EngineError
from .....quant.checkpoint.config import ModelConfig
from ...options import EngineOptions
from .table import Kernels


def choose_kernels(
    options: EngineOptions, config: ModelConfig, dtype: torch.dtype, device: torch.device, available: int
) -> Kernels:
    """Resolve `kernels` and `lm_head`, and see whether there is room for dense copies.

    - `kernels` auto: exact where dtype float32 is asked for by name, else compiled or torch.
    - Dense copies are kept on a CPU if they take no more than half of the `available` bytes (before loading): the KV
      cache takes its share of what is left. A weight of 4 bits in groups of 64 then takes 2.56 bytes in place of 0.56.
      Without them a step of 5 to 64 rows runs on the 4-bit kernel, which takes 1.2 times as long at 8 rows and 2.5
      times at 64 (4096 x 4096 on two Zen 4 cores), and one of more rows unpacks each weight first, which takes as long
      as a product with 100 rows.
    - `lm_head` auto: int8 for a single row where the linear layers are quantized, on a CPU with AMX. There it saves
      8% of a step of SmolLM2-135M, whose head is a fifth of the model; without AMX it saves nothing. Its rounding
      (KL divergence 0.002) is small beside that of computing in bfloat16 (0.011).

    Raises EngineError where an option cannot be met.
    """
    exact = options.kernels == "exact" or (options.kernels == "auto" and options.dtype == "float32")
    int8_fits = device.type == "cpu" and dtype == torch.bfloat16
    if options.lm_head == "int8" and not int8_fits:
        kind = str(dtype).removeprefix("torch.")
        raise EngineError(f"lm_head = 'int8': needs bfloat16 on a CPU, this engine computes in {kind} on {device.type}")
    gains = config.quantization is not None and not exact and torch.cpu._is_amx_tile_supported()
    wanted = options.lm_head == "int8" or (options.lm_head == "auto" and gains)
    return Kernels(
        exact=exact,
        keep_dense=device.type == "cpu" and dense_bytes(config, dtype) <= available // 2,
        int8_head=wanted and int8_fits,
    )


def dense_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of all linear layers but lm_head, dense."""
    heads = config.num_heads + config.num_kv_heads  # of queries and of outputs; of keys and of values
    attention = 2 * heads * config.head_dim * config.hidden_size
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_layers * (attention + mlp) * dtype.itemsize
