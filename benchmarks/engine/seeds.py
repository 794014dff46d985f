"""How often a seed gives another answer because of what else happens, and by how much log-probabilities differ.

    python -m benchmarks.engine.seeds [MODEL] [--device cuda] [--requests 12] [--threads 1] [--paths NAME ...]

Every request is answered alone first, then in circumstances that must not matter. Without MODEL, it is one of
SmolLM2-135M's shape with random weights, and the same in 4 bits: nothing is downloaded. Also measured is what it takes
to compute generated tokens again, as after a preemption, beside a prompt of as many.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, Sample, SamplingParams
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk, Model
from slurminfer.nodes.native.options import EngineOptions

from .paths import in_four_bits, random_model

Asked = tuple[list[int], SamplingParams]
_TOKENS, _PEAKED = 40, 0.05
_CPU_PATHS: dict[str, dict[str, Any]] = {
    "compiled, bfloat16": {"dtype": "bfloat16", "kernels": "compiled"},
    "compiled, 4 bits": {"dtype": "bfloat16", "kernels": "compiled", "bits": 4},
    "torch, float32": {"dtype": "float32"},
    "torch, bfloat16": {"dtype": "bfloat16", "kernels": "torch"},
    "torch, 4 bits": {"dtype": "bfloat16", "kernels": "torch", "bits": 4},
}
_GPU_PATHS: dict[str, dict[str, Any]] = {
    "cuda, bfloat16": {"dtype": "bfloat16"},
    "cuda, float32": {"dtype": "float32"},
    "cuda, 4 bits": {"dtype": "bfloat16", "bits": 4},
}
# What an engine is told beside; `blocks`: of its KV cache; `repeat`: ask all twice; `whole`: one request after the
# other; `begun`: with tokens of the answer that was got alone.
_CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "with others": {},
    "prompt in pieces": {"whole": True, "max_batch_tokens": 64},
    "beginning cached": {"whole": True, "repeat": True},
    "guesses": {"speculative": "ngram"},
    "preempted": {"tokens": 800},
    "goes on elsewhere": {"whole": True, "begun": True},
}


def asked(count: int, vocabulary: int) -> list[Asked]:
    """Sampled requests with prompts of 5 to 400 tokens, each of which shares no cache with another."""
    chosen, found = random.Random(0), []
    kinds: list[dict[str, Any]] = [{}, {"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.02, "presence_penalty": 0.5}]
    for number in range(count):
        prompt = chosen.choices(range(vocabulary), k=chosen.choice((5, 40, 150, 400)))
        params = SamplingParams(
            max_tokens=_TOKENS, seed=number, logprobs=0, cache_salt=str(number), **kinds[number % 4]
        )
        found.append((prompt, params))
    return found


def answers(model: Model, requests: Sequence[Request], **told: Any) -> list[list[Sample]]:
    """What they say, all at once."""
    options = EngineOptions(model=Path(), **{"max_batch_tokens": 4096, **told})
    core = EngineCore(model, options)
    found: dict[str, list[Sample]] = {request.id: [] for request in requests}
    for request in requests:
        core.add(request)
    while core.busy:
        for output in core.step():
            assert output.sample is not None
            found[output.request.id].append(output.sample)
    return list(found.values())


def compare(load: Callable[[int], Model], count: int) -> list[tuple[str, int, float]]:
    """For each circumstance: how many answers are other ones, and the largest difference of a log-probability."""
    model = load(20_000)
    requests = asked(count, model.vocab_size)
    alone = [answers(model, [Request("0", *each)])[0] for each in requests]
    return [(name, *_differ(alone, _said(load, requests, alone, **told))) for name, told in _CIRCUMSTANCES.items()]


def _said(
    load: Callable[[int], Model], requests: Sequence[Asked], alone: Sequence[list[Sample]], *, tokens: int = 20_000,
    whole: bool = False, repeat: bool = False, begun: bool = False, **told: Any,
) -> list[list[Sample]]:  # fmt: skip
    model = load(tokens)
    if begun:
        lengths = [random.Random(number).randrange(_TOKENS) for number in range(len(requests))]
        before = [said[:length] for said, length in zip(alone, lengths, strict=True)]
        goes_on = [
            Request("0", *each, [sample.token for sample in said]) for each, said in zip(requests, before, strict=True)
        ]
        return [[*said, *answers(model, [each])[0]] for said, each in zip(before, goes_on, strict=True)]
    if not whole:
        return answers(model, [Request(str(number), *each) for number, each in enumerate(requests)], **told)
    if not repeat:
        return [answers(model, [Request("0", *each)], **told)[0] for each in requests]
    found = []
    for prompt, params in requests:
        core_requests = [Request(str(n), prompt, replace(params, max_tokens=1 if n == 0 else _TOKENS)) for n in (0, 1)]
        found.append(_one_after_the_other(model, core_requests)[1])
    return found


def _one_after_the_other(model: Model, requests: Sequence[Request]) -> list[list[Sample]]:
    """In one engine, so that the later ones find the prefix cache."""
    core, found = EngineCore(model, EngineOptions(model=Path(), max_batch_tokens=4096)), []
    for request in requests:
        core.add(request)
        found.append([output.sample for _ in iter(lambda: core.busy, False) for output in core.step() if output.sample])
    return found


def _differ(alone: Sequence[list[Sample]], found: Sequence[list[Sample]]) -> tuple[int, float]:
    others, most = 0, 0.0
    for one, other in zip(alone, found, strict=True):
        others += [sample.token for sample in one] != [sample.token for sample in other]
        for a, b in zip(one, other, strict=True):
            if a.token != b.token:
                break  # what comes later has another context
            assert a.logprobs is not None and b.logprobs is not None
            most = max(most, abs(a.logprobs.chosen - b.logprobs.chosen))
    return others, most


def again(model: Model, context: int, count: int) -> float:
    """How many times as long it takes to compute generated tokens again as a prompt of as many, behind `context`."""
    tokens = random.Random(1).choices(range(model.vocab_size), k=context + count)
    blocks, best = range(-(-len(tokens) // model.block_size)), {True: float("inf"), False: float("inf")}
    model.forward([Chunk(tokens[:context], 0, blocks, 1, prompt=True)])
    for _ in range(5):
        for prompt in best:
            began = time.perf_counter()
            model.forward([Chunk(tokens[context:], context, blocks, 1, prompt=prompt)])
            best[prompt] = min(best[prompt], time.perf_counter() - began)
    return best[False] / best[True]


def main() -> None:
    """Print a table for each way to compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--paths", nargs="+", help="by default all")
    given = parser.parse_args()
    paths = _CPU_PATHS if given.device == "cpu" else _GPU_PATHS
    with tempfile.TemporaryDirectory() as folder:
        models = {0: given.model}
        if given.model is None:
            models = {0: Path(folder, "dense"), 4: Path(folder, "four")}
            random_model(models[0], _PEAKED)
            in_four_bits(models[0], models[4])
        for name, told in paths.items():
            bits = told.get("bits", 0)
            if bits in models and name in (given.paths or paths):
                options = {key: value for key, value in told.items() if key != "bits"}
                _show(name, models[bits], given, options)


def _show(name: str, path: Path, given: argparse.Namespace, told: dict[str, Any]) -> None:
    loaded: dict[int, Model] = {}

    def load(tokens: int) -> Model:
        if tokens not in loaded:
            element = 4 if told["dtype"] == "float32" else 2
            gib = tokens * _token_numbers(path) * element / 2**30
            loaded[tokens] = load_model(
                EngineOptions(
                    model=path, device=given.device, threads=given.threads, kv_cache_gib=gib, context_length=700, **told
                )
            )
        return loaded[tokens]

    table = Table("circumstance", "other answers", "largest difference of a log-probability", title=name)
    for circumstance, others, most in compare(load, given.requests):
        table.add_row(circumstance, f"{others} of {given.requests}", f"{most:.2g}")
    Console().print(table)
    if name.startswith("compiled"):
        times = {context: again(load(20_000), context, 500) for context in (500, 1500)}
        print(f"{name}: 500 generated tokens again, in times of a prompt, behind so many tokens: {times}")


def _token_numbers(path: Path) -> int:
    """Keys and values of a token."""
    from slurminfer.quant.checkpoint.config import read_config

    config = read_config(path)
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim


if __name__ == "__main__":
    main()
