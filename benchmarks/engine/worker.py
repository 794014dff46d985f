"""One measured process: `worker.py ENGINE MODEL TOKENS [--dtype D] [--context N]`, JSON on standard output.

All engines get the same token ids, in batches of prompts of one length. A decode step is what n + 1 tokens take longer
than the first, over n. Runs with the interpreter of the engine's own environment, where slurminfer is missing but for
its own engine: hence a timer and a memory reader that all engines can share, and not those of the package.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

BATCHES = (1, 8, 64)
PROMPT = 64
_STEPS, _REPEATS = 32, 3
_KV_GIB = 1.0
_COMPARED = 16  # greedy tokens at batch 1
Prompts = list[list[int]]


class BenchmarkEngine(Protocol):
    """An engine under test."""

    @property
    def batches(self) -> tuple[int, ...]:
        """Sequences at once that are measured."""

    def generate(self, prompts: Prompts, count: int) -> Prompts:
        """The `count` greedy tokens that follow each prompt; an end-of-sequence token does not end them."""


class Native:
    """slurminfer's engine, with scheduler and sampler, without HTTP."""

    batches = BATCHES

    def __init__(self, model: Path, dtype: str, context: int) -> None:
        from slurminfer.core.machine.libraries import prepare

        prepare()  # as the server does, before PyTorch is imported
        from slurminfer.nodes.native.engine.core import EngineCore
        from slurminfer.nodes.native.model.loading import load_model
        from slurminfer.nodes.native.options import EngineOptions

        options = EngineOptions(model=model, dtype=dtype, kv_cache_gib=_KV_GIB, context_length=context)  # type: ignore[arg-type]
        self._core, self._count = EngineCore(load_model(options), options), 0
        gc.collect()
        gc.freeze()  # as the server does

    def generate(self, prompts: Prompts, count: int) -> Prompts:
        from slurminfer.nodes.native.engine.request import Request, SamplingParams

        params = SamplingParams(max_tokens=count, temperature=0)
        requests = [Request(str(self._count + i), prompt, params) for i, prompt in enumerate(prompts)]
        self._count += len(requests)
        for request in requests:
            self._core.add(request)
        while self._core.busy:
            self._core.step()
        return [request.tokens[request.prompt_length :] for request in requests]


class Transformers:
    """The library's model with its own cache, stepped by hand: faster than its `generate`."""

    batches = BATCHES

    def __init__(self, model: Path, dtype: str, context: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))

    def generate(self, prompts: Prompts, count: int) -> Prompts:
        torch = self._torch
        tokens, cache, found = torch.tensor(prompts), None, []
        with torch.inference_mode():
            for _ in range(count):
                out = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens, cache = out.logits[:, -1].max(-1, keepdim=True).indices, out.past_key_values
                found.append(tokens)
        tokens_of: Prompts = torch.cat(found, 1).tolist()
        return tokens_of


class Vllm:
    """vLLM on CPUs, without HTTP and without its prefix cache, which would answer repeated prompts."""

    batches = BATCHES

    def __init__(self, model: Path, dtype: str, context: int) -> None:
        os.environ |= {"VLLM_CPU_KVCACHE_SPACE": str(int(_KV_GIB)), "VLLM_LOGGING_LEVEL": "ERROR"}
        from vllm import LLM  # type: ignore[import-not-found]

        self._llm = LLM(
            str(model), dtype=dtype, max_model_len=context, max_num_seqs=max(BATCHES), enable_prefix_caching=False,
            disable_log_stats=True,
        )  # fmt: skip

    def generate(self, prompts: Prompts, count: int) -> Prompts:
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True, detokenize=False)
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        return [list(out.outputs[0].token_ids) for out in self._llm.generate(asked, params, use_tqdm=False)]


class LlamaCpp:
    """llama.cpp by its Python binding; one sequence at a time is what that offers."""

    batches = (1,)

    def __init__(self, model: Path, dtype: str, context: int) -> None:
        from llama_cpp import Llama  # type: ignore[import-not-found]

        threads = len(os.sched_getaffinity(0))
        self._llama = Llama(
            str(model), n_ctx=context, n_batch=context // 2, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
            verbose=False,
        )  # fmt: skip

    def generate(self, prompts: Prompts, count: int) -> Prompts:
        stream = self._llama.generate(prompts[0], temp=0, reset=True)
        self._llama.reset()
        return [[next(stream) for _ in range(count)]]


ENGINES: dict[str, Callable[[Path, str, int], BenchmarkEngine]] = {
    "native": Native, "transformers": Transformers, "vllm": Vllm, "llama.cpp": LlamaCpp,
}  # fmt: skip


def measure(engine: BenchmarkEngine, stream: list[int], context: int) -> dict[str, Any]:
    """Tokens per second: decode by batch size, and prefill of half of the context."""
    decode = {}
    for batch in engine.batches:
        prompts = [stream[i * PROMPT // 2 :][:PROMPT] for i in range(batch)]
        engine.generate(prompts, 2)
        seconds = [_seconds(engine, prompts, 1 + _STEPS) - _seconds(engine, prompts, 1) for _ in range(_REPEATS)]
        decode[batch] = batch * _STEPS / statistics.median(seconds)
    half = context // 2
    long = [(stream * 3)[i * 7 :][:half] for i in range(1, 1 + _REPEATS)]
    prefill = half / statistics.median(_seconds(engine, [prompt], 1) for prompt in long)
    return {"decode": decode, "prefill": prefill}


def _seconds(engine: BenchmarkEngine, prompts: Prompts, count: int) -> float:
    began = time.perf_counter()
    engine.generate(prompts, count)
    return time.perf_counter() - began


def _peak_rss() -> int:
    """Bytes; VmHWM, because ru_maxrss also counts the process that forked this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("model", type=Path)
    parser.add_argument("tokens", type=Path, help="JSON list of token ids")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--context", type=int, default=4096)
    args = parser.parse_args()
    stream = json.loads(args.tokens.read_text(encoding="utf-8"))
    engine: BenchmarkEngine = ENGINES[args.engine](args.model, args.dtype, args.context)
    tokens = engine.generate([stream[:PROMPT]], 1)
    first_token_at = time.time()
    tokens = engine.generate([stream[:PROMPT]], _COMPARED)
    result = measure(engine, stream, args.context) | {"first_token_at": first_token_at, "tokens": tokens[0]}
    print(json.dumps(result | {"peak_rss_bytes": _peak_rss()}), flush=True)
    os._exit(0)  # engines leave threads and processes behind that need not be waited for


if __name__ == "__main__":
    main()
