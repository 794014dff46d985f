"""llguidance beside xgrammar: what each takes, how long it compiles, and what a mask costs.

    python -m benchmarks.api.libraries [--model DIRECTORY] [--suite]

xgrammar is left out where it is not installed; it needs transformers and triton, so give it an environment of its own
(`pip install --target DIR --no-deps xgrammar apache-tvm-ffi`, and DIR on PYTHONPATH). Texts are drawn at random from
what a mask allows, with a bias towards closing; the masks of both are timed on the same kind of walk. Prints JSON.
"""

import argparse
import importlib.util
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import numpy as np
import numpy.typing as npt
import referencing.exceptions

from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.grammar.errors import ConstraintError, MatcherError
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.models import resolve

from . import suite
from .schemas import SCHEMAS
from .structured import STAFF

_STEPS, _SEEDS, _ENDING = 60, 2, 0.4
_CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
Mask = npt.NDArray[np.uint8]


class State(Protocol):
    """Where a text stands in its grammar."""

    def mask(self) -> Mask: ...

    def accept(self, token: int) -> bool:
        """Whether the text is complete."""


Compile = Callable[[Any], Callable[[], State]]


def ours(tokenizer: Tokenizer, vocab: int) -> Compile:
    """llguidance, as the engine uses it."""
    grammars, ends = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids), frozenset(tokenizer.end_ids)

    class Ours:
        def __init__(self, matcher: Any) -> None:
            self._matcher = matcher

        def mask(self) -> Mask:
            return np.frombuffer(self._matcher.fill(), dtype=np.uint8)

        def accept(self, token: int) -> bool:
            self._matcher.accept(token)
            return bool(self._matcher.is_complete)

    def compiled(schema: Any) -> Callable[[], State]:
        grammar = grammars.compile(JsonSchema(schema), vocab)
        return lambda: Ours(grammar.matcher(ends))

    return compiled


def theirs(tokenizer: Tokenizer, vocab: int) -> Compile:
    """xgrammar, with its defaults in strict mode off: properties that are not named are allowed, as the drafts say."""
    import xgrammar  # type: ignore[import-not-found]

    ends = sorted(tokenizer.end_ids)
    names = [tokenizer._tokenizer.id_to_token(token) or "" for token in range(vocab)]
    info = xgrammar.TokenizerInfo(names, xgrammar.VocabType.BYTE_LEVEL, vocab_size=vocab, stop_token_ids=ends)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    class Theirs:
        def __init__(self, grammar: Any) -> None:
            self._matcher = xgrammar.GrammarMatcher(grammar)
            self._bits = xgrammar.allocate_token_bitmask(1, vocab)

        def mask(self) -> Mask:
            self._matcher.fill_next_token_bitmask(self._bits)
            return np.asarray(self._bits.numpy().view(np.uint8)[0])

        def accept(self, token: int) -> bool:
            if not self._matcher.accept_token(token):
                raise MatcherError("not accepted")
            return bool(self._matcher.is_terminated())

    def compiled(schema: Any) -> Callable[[], State]:
        text = json.dumps(schema)
        grammar = compiler.compile_json_schema(text, any_whitespace=True, strict_mode=False)
        return lambda: Theirs(grammar)

    return compiled


def measure(compile: Compile, tokenizer: Tokenizer, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """What is taken of `schemas`, and whether it is valid; times of what people ask for (benchmarks.api.structured)."""
    began = time.perf_counter()
    make = compile(STAFF.schema)
    first = time.perf_counter() - began
    times: list[float] = []
    for seed in range(8):
        walk(make(), tokenizer, seed, times)
    compiled, refused, wrong, ended = [], 0, {}, 0
    for name, schema in schemas.items():
        began = time.perf_counter()
        try:
            make = compile(schema)
        except (ConstraintError, RuntimeError, ValueError):
            refused += 1
            continue
        compiled.append(time.perf_counter() - began)
        for seed in range(_SEEDS):
            text = walk(make(), tokenizer, seed)
            if text is not None:
                ended += 1
                if not _is_valid(schema, text):
                    wrong[name] = text[:100]
    return {
        "compile_typical_ms": first * 1e3,
        "mask_median_us": statistics.median(times) * 1e6,
        "mask_p99_us": statistics.quantiles(times, n=100)[98] * 1e6,
        "mask_worst_us": max(times) * 1e6,
        "compile_median_ms": statistics.median(compiled) * 1e3,
        "compile_worst_ms": max(compiled) * 1e3,
        "schemas": len(schemas),
        "taken": len(compiled),
        "taken_and_never_wrong": len(compiled) - len(wrong),
        "texts_ended": ended,
        "schemas_with_a_wrong_text": len(wrong),
        "wrong": wrong,
    }


def walk(state: State, tokenizer: Tokenizer, seed: int, times: list[float] | None = None) -> str | None:
    """A random text; None if it has not ended, or could not go on."""
    draw, tokens = random.Random(seed), list[int]()
    try:
        while len(tokens) < _STEPS:
            began = time.perf_counter()
            mask = state.mask()
            if times is not None:
                times.append(time.perf_counter() - began)
            allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
            if tokenizer.end_ids & set(allowed) and (len(allowed) == 1 or draw.random() < _ENDING):
                break
            usual = [token for token in allowed if token not in tokenizer.end_ids] or allowed
            some = draw.sample(usual, min(len(usual), 50))
            closing = [token for token in some if tokenizer.token_bytes(token)[-1:] in (b'"', b"}", b"]", b",")]
            token = draw.choice(closing if closing and draw.random() < _ENDING else some)
            tokens.append(token)
            if state.accept(token):
                break
        else:
            return None
        return b"".join(tokenizer.token_bytes(token) for token in tokens if token not in tokenizer.end_ids).decode()
    except (MatcherError, RuntimeError, IndexError, ValueError):
        return None


def _is_valid(schema: Any, text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    try:
        return bool(jsonschema.Draft202012Validator(schema, format_checker=_CHECKER).is_valid(value))
    except referencing.exceptions.Unresolvable:  # a schema that only its remote parts could judge, and was taken
        return False


def _import_s(name: str) -> float:
    """Seconds that a program takes longer with the import."""
    seconds = []
    for code in ("pass", f"import {name}"):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - began)
    return seconds[1] - seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="in place of the demo model")
    parser.add_argument("--suite", action="store_true", help="the schemas of the JSON-Schema-Test-Suite too")
    given = parser.parse_args()
    model = given.model or resolve("demo")
    tokenizer = Tokenizer(model)
    vocab = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    schemas = {**SCHEMAS, **(suite.schemas() if given.suite else {})}
    libraries = {"llguidance": ours, **({"xgrammar": theirs} if importlib.util.find_spec("xgrammar") else {})}
    found = {}
    for name, make in libraries.items():
        began = time.perf_counter()
        compile = make(tokenizer, vocab)
        compile({})
        ready = time.perf_counter() - began
        found[name] = {"import_s": _import_s(name), "ready_s": ready, **measure(compile, tokenizer, schemas)}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
