"""One measured process: `engine_worker.py native|transformers DTYPE MODEL TEXT [--quick]`, JSON on standard output.

Both engines get the same token ids, in batches of prompts of one length, so that transformers needs neither padding
nor mask. Decode speed is from the median step. transformers runs by hand and by `generate`: the faster one counts.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

BATCHES = (1, 8, 64)
PROMPT, PREFILL = 64, 2048
_KV_GIB = 1.0
_STEPS, _FEWEST_STEPS, _SECONDS = 24, 6, 8.0
_COMPARED = 16  # greedy tokens at batch 1, to see that both compute the same


class Measured(Protocol):
    """An engine under test."""

    @property
    def kv_bytes(self) -> int:
        """Keys and values that were written."""

    def decode(self, prompts: list[list[int]]) -> Iterator[list[int]]:
        """Greedy tokens, one of each prompt at a time, without end."""

    def generate_step_s(self, prompts: list[list[int]]) -> float | None:
        """Seconds of one decode step in the library's own loop, where it has one."""

    def weight_bytes(self) -> int:
        """Of the weights as they are in the model's files, in the dtype computed in."""


class Native:
    """slurminfer's engine, with scheduler and sampler, without HTTP."""

    def __init__(self, model: Path, dtype: str) -> None:
        from slurminfer.nodes.native.engine_core import EngineCore
        from slurminfer.nodes.native.options import EngineOptions
        from slurminfer.nodes.native.runner import load_model

        options = EngineOptions(model=model, dtype=dtype, kv_cache_gib=_KV_GIB)  # type: ignore[arg-type]
        self._runner = load_model(options)
        self._core = EngineCore(self._runner, options)
        self._touched: set[int] = set()
        self._count = 0

    def decode(self, prompts: list[list[int]]) -> Iterator[list[int]]:
        from slurminfer.nodes.native.request import Request, SamplingParams

        params = SamplingParams(max_tokens=1000, temperature=0)
        requests = [Request(str(self._count + i), prompt, params) for i, prompt in enumerate(prompts)]
        self._count += len(requests)
        for request in requests:
            self._core.add(request)
        try:
            while True:
                while not all(request.generated for request in requests):
                    self._core.step()
                self._touched.update(block for request in requests for block in request.blocks)
                yield [request.tokens[-1] for request in requests]
                self._core.step()
        finally:
            for request in requests:
                self._core.abort(request.id)

    def generate_step_s(self, prompts: list[list[int]]) -> float | None:
        return None

    @property
    def kv_bytes(self) -> int:
        """Of the blocks that were written."""
        return int(len(self._touched) * _KV_GIB * 2**30 / self._runner.num_blocks)

    def weight_bytes(self) -> int:
        return 0  # those of the same model in transformers, which can tell


class Transformers:
    """The library's model with its own cache."""

    def __init__(self, model: Path, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self.kv_bytes = 0

    def decode(self, prompts: list[list[int]]) -> Iterator[list[int]]:
        torch = self._torch
        tokens, cache = torch.tensor(prompts), None
        while True:
            with torch.inference_mode():
                out = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens, cache = out.logits[:, -1].max(-1, keepdim=True).indices, out.past_key_values
            self.kv_bytes = max(self.kv_bytes, sum(2 * layer.keys.nbytes for layer in cache.layers))
            yield tokens[:, 0].tolist()

    def generate_step_s(self, prompts: list[list[int]]) -> float | None:
        torch, steps = self._torch, _FEWEST_STEPS
        ids = torch.tensor(prompts)

        def seconds(new: int) -> float:
            start = time.perf_counter()
            self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False
            )
            return time.perf_counter() - start

        return (seconds(steps + 1) - seconds(1)) / steps

    def weight_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self._model.parameters())


ENGINES: dict[str, Callable[[Path, str], Measured]] = {"native": Native, "transformers": Transformers}


def measure(engine: Measured, stream: list[int], batches: tuple[int, ...], quick: bool) -> dict[str, Any]:
    """Tokens per second: decode by batch size, and prefill unless `quick`."""
    result: dict[str, Any] = {"decode": {}, "generate": {}}
    for batch in batches:
        prompts = [stream[i * PROMPT // 2 :][:PROMPT] for i in range(batch)]
        result["decode"][batch] = batch / _step_s(engine.decode(prompts))
        own = None if quick else engine.generate_step_s(prompts)
        if own is not None:
            result["generate"][batch] = batch / own
    if not quick:
        result["prefill"] = PREFILL / statistics.median(_prefill_s(engine, stream[i : i + PREFILL]) for i in (5, 6, 7))
    return result


def _step_s(steps: Iterator[list[int]]) -> float:
    """Median seconds of a decode step: prefill and two steps of warming up are not counted."""
    for _ in range(3):
        next(steps)
    found: list[float] = []
    while len(found) < _STEPS and (len(found) < _FEWEST_STEPS or sum(found) < _SECONDS):
        found.append(_seconds(lambda: next(steps)))
    return statistics.median(found)


def _prefill_s(engine: Measured, prompt: list[int]) -> float:
    steps = engine.decode([prompt])
    return _seconds(lambda: next(steps))


def _seconds(act: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _peak_rss() -> int:
    """Bytes; VmHWM, because ru_maxrss also counts the process that forked this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("dtype")
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--quick", action="store_true", help="decode at the smallest and largest batch only")
    args = parser.parse_args()
    import tokenizers

    stream = tokenizers.Tokenizer.from_file(str(args.model / "tokenizer.json")).encode(args.text.read_text()).ids
    engine: Measured = ENGINES[args.engine](args.model, args.dtype)
    steps = engine.decode([stream[:PROMPT]])
    tokens = [next(steps)[0]]
    first_token_at = time.time()
    tokens += [next(steps)[0] for _ in range(_COMPARED - 1)]
    del steps
    result = measure(engine, stream, (BATCHES[0], BATCHES[-1]) if args.quick else BATCHES, args.quick)
    result |= {"first_token_at": first_token_at, "tokens": tokens, "peak_rss_bytes": _peak_rss()}
    result |= {"prompt_tokens": PROMPT, "prefill_tokens": PREFILL}
    result |= {"kv_bytes": engine.kv_bytes, "weight_bytes": engine.weight_bytes()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
