"""Bodies of requests read and checked. Whatever is wrong becomes an ApiError."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from .....core.net.wording import plain
from ...grammar.errors import MatcherError
from ...grammar.matcher import Grammar, Matcher
from ..errors import ApiError, short
from .body import decode
from .continued import Told
from .fields import refusal
from .generation import GenerationRequest

# Numbers that other servers take as 10.0 too.
_INTEGERS = ("best_of", "logprobs", "max_completion_tokens", "max_tokens", "min_new_tokens", "min_tokens", "n",
             "prompt_logprobs", "seed", "top_k", "top_logprobs")  # fmt: skip

MOST_TOLD = 2**18  # tokens of all choices that another server has told: some seconds
MOST_HELD = 2**24  # with the prompts, of which each choice has a copy: 128 MiB

_Request = TypeVar("_Request", bound=GenerationRequest)
_Any = TypeVar("_Any", bound=msgspec.Struct)


def parse(kind: type[_Request], body: bytes) -> _Request:
    """The request in `body`. Fields that nobody defines are ignored, as vLLM and SGLang do. Raises ApiError."""
    return parse_raw(kind, decode(body))


def parse_raw(kind: type[_Request], raw: dict[str, Any]) -> _Request:
    """The request in a decoded body. Raises ApiError."""
    refused = refusal(raw, kind.endpoint)
    if refused is not None:
        name, why = refused
        raise ApiError(400, f"{name} = {short(raw[name])}: {why}", param=name)
    _make_whole(raw)
    request = convert(raw, kind)
    request.check()
    return request


def convert(raw: dict[str, Any], kind: type[_Any]) -> _Any:
    """The fields of `raw` that `kind` has, checked. Raises ApiError."""
    try:
        return _convert_in_pieces(raw, kind) or msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, kind) from error


def _convert_in_pieces(raw: dict[str, Any], kind: type[_Any]) -> _Any | None:
    """The same of a request with several prompts of token ids: between two of them, other threads go on.

    None where there are none, or one is wrong. Raises ValidationError for other fields.
    """
    name = next((name for name in ("prompt", "input") if name in kind.__struct_fields__), None)
    lists = raw.get(name) if name is not None else None
    if name is None or not isinstance(lists, list) or len(lists) < 2 or {type(each) for each in lists} != {list}:
        return None
    try:
        prompts = [msgspec.convert(each, list[int]) for each in lists]
    except msgspec.ValidationError:
        return None
    return msgspec.structs.replace(msgspec.convert({**raw, name: prompts[:1]}, kind), **{name: prompts})


def _make_whole(raw: dict[str, Any]) -> None:
    """Let 10.0 be the integer 10, in place."""
    for name in _INTEGERS:
        value = raw.get(name)
        if isinstance(value, float) and value.is_integer():
            raw[name] = int(value)


def _explain(message: str, raw: Any, kind: type[msgspec.Struct]) -> ApiError:
    """msgspec's message as an ApiError that names the field, its value and what is valid."""
    missing = re.match(r"Object missing required field `(.*)`", message)
    if missing:
        return ApiError(400, f"{missing[1]}: missing; the request must have this field", param=missing[1])
    text, _, path = message.partition(" - at `$.")
    path = path.rstrip("`")
    for part in re.findall(r"\w+", path):
        raw = raw[int(part)] if isinstance(raw, list) else raw[part]
    if text.startswith("Invalid enum value"):
        expected = f"expected one of {', '.join(_literals(get_type_hints(kind).get(path)))}"
    else:
        expected = plain(re.sub(r", got `.*`$", "", text))
    return ApiError(400, f"{path} = {short(raw)}: {expected}", param=path)


def _literals(hint: Any) -> list[str]:
    """The values that a type of Literals allows."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return [value for part in get_args(hint) for value in _literals(part)]


def require_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise ApiError unless `ids`, a prompt, are tokens of the model, at least one."""
    require_known("prompt", ids, vocab_size)
    if not ids:
        raise ApiError(400, "prompt: no tokens; expected at least one", param="prompt")


def require_continuable(told: Told, vocab_size: int, max_tokens: int) -> None:
    """Raise ApiError unless the tokens that a choice begins with leave something to generate, if it is to go on."""
    require_known(told.param, told.tokens, vocab_size)
    count, most = len(told.tokens), max_tokens if told.is_finished else max_tokens - 1
    if count > max(most, 0):
        expected = f"at most max_tokens = {max_tokens}" if told.is_finished else f"fewer than max_tokens = {max_tokens}"
        raise ApiError(400, f"{told.param} has {count} tokens: expected {expected}", param=told.param)


def require_few_told(
    told: Sequence[Told], prompts: Sequence[int], one: int, most: int = MOST_TOLD, most_held: int = MOST_HELD
) -> None:
    """Raise ApiError where going through the tokens of all choices again takes too long, or too much memory.

    Args:
        prompts: the length of each choice's prompt.
        one: tokens that a single choice may have, which is never too many.
    """
    counts = [len(each.tokens) for each in told]
    held = sum(prompt + count for prompt, count, each in zip(prompts, counts, told, strict=True)
               if count and not each.is_finished)  # fmt: skip
    for count, limit, what in ((sum(counts), most, "tokens"), (held, most_held, "tokens with their prompts")):
        if count > max(limit, one):
            message = f"continue_token_ids: the choices have {count} {what}: expected at most {max(limit, one)}"
            raise ApiError(400, message, param="continue_token_ids")


def require_length(body: GenerationRequest, max_tokens: int) -> None:
    """Raise ApiError where an answer is to have more tokens than it may."""
    if body.fewest_tokens > max_tokens:
        name = "min_new_tokens" if body.min_tokens is None else "min_tokens"
        expected = f"expected at most max_tokens = {max_tokens}"
        raise ApiError(400, f"{name} = {body.fewest_tokens}: {expected}", param=name)


def begun_matcher(told: Told, grammar: Grammar | None, stop_ids: frozenset[int]) -> Matcher | None:
    """Where a choice by `grammar` stands that is to go on; None without a grammar, or at its beginning.

    Raises ApiError for one that may not begin with its tokens.
    """
    if grammar is None or told.is_finished or not told.tokens:
        return None
    matcher, place = grammar.matcher(stop_ids), 0
    try:
        for place, token in enumerate(told.tokens):  # noqa: B007  # the message names the one that is refused
            matcher.accept(token)
    except MatcherError as error:
        message = f"{told.param}: the answer's structure does not allow token {told.tokens[place]} at place {place}"
        raise ApiError(400, f"{message}: {error}", param=told.param) from error
    return matcher


def require_stop_ids(ids: Collection[int], vocab_size: int) -> None:
    """Raise ApiError unless `ids` are tokens of the model."""
    require_known("stop_token_ids", ids, vocab_size)


def require_known(param: str, ids: Collection[int], vocab_size: int) -> None:
    if not ids or 0 <= min(ids) <= max(ids) < vocab_size:  # without a step of Python for each
        return
    wrong = next((id for id in ids if not 0 <= id < vocab_size), None)
    if wrong is not None:
        raise ApiError(400, f"{param}: token id {short(wrong)}: expected 0 to {vocab_size - 1}", param=param)
