"""Structured output: what masks cost in a full batch, and whether answers are valid by their schemas."""

import gc
import statistics
import time
from collections.abc import Callable
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
    overhead = _overhead(core, tokenizer, grammar, tokens=48 if quick else 128, rounds=2 if quick else 7)
    return {**overhead, **validity.measure(core, tokenizer, grammars, {} if quick else suite.schemas())}


def load(model: Path) -> tuple[EngineCore, Tokenizer, Grammars]:
    """The engine in this process, and what compiles grammars for it."""
    options = EngineOptions(model=model, kv_cache_gib=1, context_length=2048)
    core, tokenizer = EngineCore(load_model(options), options), Tokenizer(model)
    gc.freeze()  # as the server does
    return core, tokenizer, Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)


def _overhead(core: EngineCore, tokenizer: Tokenizer, grammar: Grammar, *, tokens: int, rounds: int) -> dict[str, Any]:
    prompt = tokenizer.encode(_PROMPT, add_special_tokens=True)
    sides: dict[str, Callable[[], float]] = {
        name: lambda one=one: _tokens_per_s(core, prompt, one, tokens)  # type: ignore[misc]
        for name, one in (("free", None), ("constrained", grammar))
    }
    for run in sides.values():
        run()  # the first one warms up
    found = [{name: run() for name, run in sides.items()} for _ in range(rounds)]
    return {
        "overhead_8": statistics.median(one["free"] / one["constrained"] for one in found),
        "free_tokens_per_s": statistics.median(one["free"] for one in found),
        "constrained_tokens_per_s": statistics.median(one["constrained"] for one in found),
        "rounds": found,
    }


def _tokens_per_s(core: EngineCore, prompt: list[int], grammar: Grammar | None, tokens: int) -> float:
    """Of a full batch that decodes, from its first token on."""
    requests = [
        Request(str(seed), prompt, SamplingParams(max_tokens=tokens, temperature=0.8, seed=seed, grammar=grammar))
        for seed in range(_BATCH)
    ]
    for request in requests:
        core.add(request)
    while not all(request.generated for request in requests):
        core.step()
    begun, began = sum(request.generated for request in requests), time.perf_counter()
    while core.busy:
        core.step()
    seconds = time.perf_counter() - began
    made = sum(request.generated for request in requests)
    assert made == _BATCH * tokens, "all run to the end"
    return (made - begun) / seconds
