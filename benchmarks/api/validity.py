"""Answers of the real model by many schemas, each validated as draft 2020-12 with formats."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonschema

from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.engine.token_rules import TokenRules
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.grammar.errors import ConstraintError
from slurminfer.nodes.native.grammar.matcher import Grammar
from slurminfer.nodes.native.tokenizer import Tokenizer

from .schemas import SCHEMAS

_TOKENS = 80
# Answers that do not end by themselves are asked for again, by a model that likes to close what is open.
_MORE_TOKENS = 400
_CLOSING = b'"}]'
_BIAS = 12.0
_PROMPT = "An example in JSON:"
_CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER


def measure(core: EngineCore, tokenizer: Tokenizer, grammars: Grammars, suite: Mapping[str, Any]) -> dict[str, Any]:
    """The share of valid answers among those that ended, over our schemas and those of `suite` that are taken."""
    schemas = {**{f"ours: {name}": schema for name, schema in SCHEMAS.items()}, **suite}
    compiled: dict[str, Grammar] = {}
    for name, schema in schemas.items():
        try:
            compiled[name] = grammars.compile(JsonSchema(schema), core.limits.vocab_size)
        except ConstraintError:
            continue
    own = answers(core, tokenizer, compiled, SamplingParams(max_tokens=_TOKENS))
    left = {name: grammar for name, grammar in compiled.items() if name not in own}
    closing = SamplingParams(max_tokens=_MORE_TOKENS, rules=TokenRules(_bias(tokenizer, core.limits.vocab_size)))
    texts = own | answers(core, tokenizer, left, closing)
    wrong = {name: text for name, text in texts.items() if not _is_valid(schemas[name], text)}
    return {
        "valid_share": 1 - len(wrong) / max(len(texts), 1),
        "schemas": len(schemas),
        "taken": len(compiled),
        "ended": len(texts),
        "ended_by_themselves": len(own),
        "wrong": {name: text[:200] for name, text in wrong.items()},
    }


def answers(
    core: EngineCore, tokenizer: Tokenizer, compiled: Mapping[str, Grammar], params: SamplingParams
) -> dict[str, str]:
    """The text by each grammar, of those that ended within the tokens of `params`."""
    prompt, ends = tokenizer.encode(_PROMPT, add_special_tokens=True), frozenset(tokenizer.end_ids)
    requests = []
    for seed, (name, grammar) in enumerate(compiled.items()):
        requests.append(Request(name, prompt, replace(params, seed=seed, grammar=grammar, stop_token_ids=ends)))
    core.submit(requests)
    ended: dict[str, str] = {}
    while core.busy:
        for output in core.step():
            if output.finish == "stop":
                made = output.request.tokens[output.request.prompt_length :]
                told = b"".join(tokenizer.token_bytes(token) for token in made if token not in ends)
                ended[output.request.id] = told.decode()
    failures = core.take_failures()
    assert not failures, failures[0].error
    return ended


def _bias(tokenizer: Tokenizer, vocab_size: int) -> dict[int, float]:
    """A bias for tokens that close strings, lists and objects, and for those that end answers."""
    closing = (
        id for id in range(vocab_size) if tokenizer.is_visible(id) and not tokenizer.token_bytes(id).strip(_CLOSING)
    )
    return dict.fromkeys((*closing, *tokenizer.end_ids), _BIAS)


def _is_valid(schema: Any, text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return bool(jsonschema.Draft202012Validator(schema, format_checker=_CHECKER).is_valid(value))
