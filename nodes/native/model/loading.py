"""From options to a model that is ready to run: weights, kernels, the KV cache and its size."""

import sys
from dataclasses import replace

import torch

from ....core.errors import EngineError
from ....core.machine.cpus import allowed_cpus
from ....core.machine.memory import available_bytes
from ....quant.checkpoint.config import ModelConfig, read_config
from ....quant.checkpoint.files import stored_bytes
from ....quant.kv import make_format
from ....quant.models import check_quantization, remark_on
from ....quant.numerics import native_dtype
from ..options import Device, Dtype, EngineOptions
from ..tokenizer import check_same_tokens
from .cuda import reads_cache
from .decoder import Decoder
from .fused.upgrade import Upgrade
from .kv_budget import block_bytes, budget_bytes, count_blocks, step_bytes
from .kv_cache import KVCache
from .linears.choice import choose_kernels
from .parallel.model_part import ModelPart
from .runner import Decodes, PlainDecoder, Runner
from .step import Model


def load_model(options: EngineOptions, *, at_once: bool = False) -> Runner:
    """Read the model into memory, make its KV cache and set the number of compute threads of this process.

    With `at_once`, a small model whose library must still be compiled is computed without until it is there, some
    seconds later. Otherwise, compiling is waited for.

    Raises ModelNotFoundError, CorruptModelError, UnsupportedModelError, EngineError (an option cannot be met).
    """
    return load_part(options, ModelPart(whole=read_config(options.model)), at_once)


def load_part(options: EngineOptions, part: ModelPart, at_once: bool = False) -> Runner:
    """Read one rank's part of a model, make its KV cache and set the number of compute threads of this process.

    All ranks must call it. `at_once` and errors are those of `load_model`.
    """
    if options.quantization is not None:
        check_quantization(options.model, options.quantization)
    if part.is_first_rank and (remark := remark_on(options.model)):
        print(remark, file=sys.stderr, flush=True)
    torch.set_num_threads(options.threads or allowed_cpus().cores)
    return _load(options, part, _context_length(options.context_length, part.whole), at_once)


def load_draft(options: EngineOptions, target: Model) -> Runner:
    """The model of `draft_model`, in as many blocks as `target` has.

    Raises as `load_model`, and EngineError for a draft that does not know the same tokens.
    """
    assert options.draft_model is not None
    config = read_config(options.draft_model)
    if not config.has_head:
        raise EngineError(f"draft_model = {options.draft_model}: expected a model with lm_head, which generates text")
    check_same_tokens(options.model, options.draft_model)
    own = replace(options, model=options.draft_model, quantization=None, kernels="auto", kv_cache_dtype="auto")
    context_length = min(target.context_length, config.context_length)
    return _load(own, ModelPart(whole=config), context_length, False, target.num_blocks)


def _load(
    options: EngineOptions, part: ModelPart, context_length: int, at_once: bool, num_blocks: int | None = None
) -> Runner:
    """`num_blocks` of the KV cache: by default what its budget holds."""
    config, device = part.config, device_of(options.device)
    dtype = _dtype(options.dtype, device)
    format = make_format(options.kv_cache_dtype, config.head_dim, dtype, device)
    upgrade = Upgrade(options, part, context_length, dtype, format, device)
    later = at_once and upgrade.may_come_later
    with torch.inference_mode():
        fused = None if later else upgrade.load()
        if not part.all_reduce_min(fused is not None):  # ranks compute alike, or hand each other other numbers
            fused = None
        plain = None if fused else _load_plain(options, part, context_length, dtype, device)
        if num_blocks is None:
            # Until the library is there and the plain decoder gone, weights are held twice. The draft is still to come.
            coming = [path for path in (options.model if later else None, options.draft_model) if path is not None]
            reserved = step_bytes(config, options) + sum(map(stored_bytes, coming))
            budget = budget_bytes(options.kv_cache_gib, device, reserved, part.ranks_here)
            ranks, size = part.sequence_ranks, options.block_size
            beside = _draft_bytes(options, dtype, device) * ranks  # the draft's cache is whole
            num_blocks = part.all_reduce_min(count_blocks(config, context_length, size, format, budget, beside, ranks))
        cache = KVCache(config, num_blocks, options.block_size, format, device)
        if fused is not None:
            fused.attach(cache)
            return Runner(config, fused, cache, context_length)
        assert plain is not None
        decoder = _graphed(PlainDecoder(plain, cache, config, part.sequence), context_length, options, part)
    runner = Runner(config, decoder, cache, context_length)
    if later:
        upgrade.start(runner)
    return runner


def _load_plain(
    options: EngineOptions, part: ModelPart, context_length: int, dtype: torch.dtype, device: torch.device
) -> Decoder:
    weights = part.weights(options.model, dtype)
    kernels = choose_kernels(options, part.config, dtype, device, available_bytes())
    return Decoder(part.config, weights, context_length, dtype, device, kernels, part.shard, part.reduce)


def _graphed(plain: PlainDecoder, context_length: int, options: EngineOptions, part: ModelPart) -> Decodes:
    """With decode steps recorded, where there is a GPU and its kernels read the KV cache."""
    cache = plain.cache
    is_whole = part.sequence is None  # else what a rank attends to depends on the step
    reads = cache.device.type == "cuda" and reads_cache(cache.format, cache.device)
    if not (options.cuda_graphs == "on" and is_whole and reads and part.whole.has_head):
        return plain
    from .cuda.graphs import GraphedDecoder

    takes = None if part.shard is None or part.shard.is_first else cache.format.dtype
    return GraphedDecoder(plain, context_length, options.max_running_requests, takes)


def _draft_bytes(options: EngineOptions, dtype: torch.dtype, device: torch.device) -> int:
    """What each block takes in the cache of the draft, if there is to be one."""
    if options.speculative != "draft" or options.draft_model is None:
        return 0
    config = read_config(options.draft_model)
    return block_bytes(config, options.block_size, make_format("auto", config.head_dim, dtype, device))


def _context_length(wanted: int | None, config: ModelConfig) -> int:
    most = config.context_length
    if wanted is not None and not 1 <= wanted <= most:
        own = config.max_position_embeddings
        stretched = "" if most == own else f", which its rope scaling makes {most}"
        raise EngineError(f"context_length = {wanted}: the model has max_position_embeddings = {own}{stretched}")
    return wanted or most


def device_of(wanted: Device) -> torch.device:
    """Raises EngineError."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError("device = 'cuda': this PyTorch sees no CUDA GPU")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    return native_dtype(device) if wanted == "auto" else known[wanted]
