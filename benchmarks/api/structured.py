"""Structured output: what masks cost in a full batch, and whether answers are valid by their schemas."""

import gc
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.grammar.matcher import Grammar
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.nodes.native.tokenizer import Tokenizer

from . import suite, validity

_BATCH = 8
_WARM = 4  # steps before the time is taken
_PROMPT = "List the staff of a small company as JSON."
# What people ask for: an object of texts, numbers, an enum and a list; so many of them that none ends early.
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["engineer", "designer", "manager", "assistant"]},
        "email": {"type": "string", "pattern": r"^[a-z.]+@[a-z]+\.(com|org)$"},
        "skills": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["name", "age", "role", "email", "skills"],
    "additionalProperties": False,
}
STAFF = JsonSchema({"type": "array", "items": PERSON, "minItems": 100})


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """Tokens/s with masks and without, in turns in one process."""
    core, tokenizer, grammars = load(model)
    grammar = grammars.compile(STAFF, core.limits.vocab_size)
    cores = {"free": load(model)[0], "constrained": core}
    overhead = _overhead(cores, tokenizer, grammar, tokens=48 if quick else 256)
    return {**overhead, **validity.measure(core, tokenizer, grammars, {} if quick else suite.schemas())}


def load(model: Path) -> tuple[EngineCore, Tokenizer, Grammars]:
    """The engine in this process, and what compiles grammars for it."""
    options = EngineOptions(model=model, kv_cache_gib=1, context_length=2048)
    core, tokenizer = EngineCore(load_model(options), options), Tokenizer(model)
    gc.freeze()  # as the server does
    return core, tokenizer, Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)


def _overhead(cores: dict[str, EngineCore], tokenizer: Tokenizer, grammar: Grammar, tokens: int) -> dict[str, Any]:
    """Two full batches that decode in turns, step by step: with masks and without, each in an engine of its own."""
    prompt = tokenizer.encode(_PROMPT, add_special_tokens=True)
    for name, core in cores.items():
        core.submit(_batch(name, prompt, grammar if name == "constrained" else None, tokens))
    seconds: dict[str, list[float]] = {name: [] for name in cores}
    while any(core.busy for core in cores.values()):
        for name, core in cores.items():
            began = time.perf_counter()
            made = len(core.step())
            if made == _BATCH:
                seconds[name].append(time.perf_counter() - began)
    assert all(len(times) >= tokens - _BATCH for times in seconds.values()), "none ended early"
    medians = {name: statistics.median(times[_WARM:]) for name, times in seconds.items()}
    return {
        "overhead_8": medians["constrained"] / medians["free"],
        **{f"{name}_tokens_per_s": _BATCH / median for name, median in medians.items()},
        "steps": len(seconds["free"]) - _WARM,
    }


def _batch(name: str, prompt: list[int], grammar: Grammar | None, tokens: int) -> list[Request]:
    params = SamplingParams(max_tokens=tokens, temperature=0.8, grammar=grammar)
    return [Request(f"{name}-{seed}", prompt, replace(params, seed=seed)) for seed in range(_BATCH)]
