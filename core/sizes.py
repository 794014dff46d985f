"""Bytes of weights and of the KV cache, by formula: for plans that are made where torch is not imported.

Every size is that of one whole model on one rank. `tests/core/test_sizes.py` compares it with what the native engine
allocates and with what quantized checkpoints hold.
"""

from typing import Literal

from .errors import EngineError

KVCacheDtype = Literal["auto", "int8", "int4"]  # auto: as computed

_FLOAT16_BYTES = 2


def kv_vector_bytes(head_dim: int, kv_cache_dtype: KVCacheDtype = "auto", item_bytes: int = 2) -> int:
    """Bytes of one stored vector: the key or the value of one head of one token, with its scale.

        auto   head_dim * item_bytes      item_bytes: 2 for bfloat16 and float16, 4 for float32
        int8   head_dim + 2               a float16 scale
        int4   head_dim / 2 + 4           a float16 scale and a float16 minimum

    Layouts: quant/kv.py. Raises EngineError for int4 where head_dim is no multiple of 4.
    """
    if kv_cache_dtype == "int8":
        return head_dim + _FLOAT16_BYTES
    if kv_cache_dtype == "int4":
        if head_dim % 4:
            raise EngineError(f"kv_cache_dtype = 'int4': the model's heads have {head_dim} channels, no multiple of 4")
        return head_dim // 2 + 2 * _FLOAT16_BYTES
    return head_dim * item_bytes


def kv_token_bytes(
    layers: int, kv_heads: int, head_dim: int, kv_cache_dtype: KVCacheDtype = "auto", item_bytes: int = 2
) -> int:
    """Bytes of one token's keys and values over all layers: layers * 2 * kv_heads * `kv_vector_bytes`.

    Raises EngineError as `kv_vector_bytes`.
    """
    return layers * 2 * kv_heads * kv_vector_bytes(head_dim, kv_cache_dtype, item_bytes)


def kv_block_bytes(
    layers: int,
    kv_heads: int,
    head_dim: int,
    block_size: int,
    kv_cache_dtype: KVCacheDtype = "auto",
    item_bytes: int = 2,
) -> int:
    """Bytes of one KV block, which holds `block_size` tokens, over all layers: block_size * `kv_token_bytes`.

    Raises EngineError as `kv_vector_bytes`.
    """
    return block_size * kv_token_bytes(layers, kv_heads, head_dim, kv_cache_dtype, item_bytes)


def weight_bytes(parameters: int, bits: int, group_size: int | None = None, group_bits: int = 0) -> int:
    """Bytes of `parameters` weights of `bits` bits each, rounded up to whole bytes.

        (parameters * bits + parameters / group_size * group_bits) / 8

    `group_bits` is what a group of `group_size` weights has beside their codes: 20 in AWQ and GPTQ of 4 bits (a
    float16 scale, a zero point of 4 bits), 16 in GGUF's Q4_0 and Q8_0 (a float16 scale), 32 in Q4_1 (and a float16
    minimum). None: no groups, as in float16 (bits = 16).
    """
    groups = 0 if group_size is None else -(-parameters // group_size)
    return -(-(parameters * bits + groups * group_bits) // 8)
