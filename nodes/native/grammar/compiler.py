"""Constraints compiled by llguidance, and a bounded memory of what was compiled."""

import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec

from .constraint import Constraint, JsonSchema
from .errors import ConstraintError
from .lark import FIRST_LINE, MAX_BYTES, Renderer, json_text
from .matcher import TOO_SLOW, Grammar
from .memory import GrammarMemory
from .place import place_of
from .schema import checked

if TYPE_CHECKING:  # it takes a tenth of a second, which a server that nobody asks for structure does without
    from llguidance import LLParserLimits, LLTokenizer

_MAX_KEPT = 32  # compiled grammars
_MAX_KEPT_BYTES = 1 << 20  # of their text: each takes some 300 bytes of memory
_MAX_MESSAGE = 600
_NO_END = "<|slurminfer: the text ends|>"  # a token that no model has
_MAX_SEARCHED = 1 << 16  # characters in which the place of a fault is looked for
_NOTHING = "no text can satisfy it"
# Half a KB each, found while text is generated and shared by all sequences of a grammar. A string with a `maxLength`
# far away needs some twenty for each token.
_MAX_LEXER_STATES = 100_000
_MAX_ITEMS = 50_000  # that may come at one place, such as choices: four for each property that is not required
# vLLM pins an older one, in whose environment only agents run. It takes texts that a schema does not allow.
_LEAST_VERSION = (1, 9)


class Grammars:
    """Compiles constraints for one tokenizer. Its methods may be called in any thread."""

    def __init__(self, tokenizer_json: str, end_ids: Collection[int], special: Mapping[str, int]) -> None:
        """
        Args:
            tokenizer_json: the text of the model's tokenizer.json.
            end_ids: tokens that end an answer.
            special: ids of the special tokens by their names.
        """
        self._json, self._end_ids, self._special = tokenizer_json, sorted(end_ids), special
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Grammar | str] = OrderedDict()  # by text; a string: why it cannot be compiled
        self._kept_bytes = 0
        self._used: WeakValueDictionary[str, Grammar] = WeakValueDictionary()  # by requests too, by text
        self._tokenizer: LLTokenizer | None = None
        self.memory = GrammarMemory()

    def compile(self, constraint: Constraint, vocab_size: int) -> Grammar:
        """The grammar of a constraint, for logits of `vocab_size` tokens: milliseconds, or nothing if it is known.

        Raises ConstraintError, and GrammarsFullError where others have to end first.
        """
        from llguidance import regex_to_lark
        from llguidance.gbnf_to_lark import any_to_lark

        renderer = Renderer(self._special, self._end_ids, lambda regex: regex_to_lark(regex, "d"), any_to_lark)
        text = renderer.render(constraint)
        if len(text) > MAX_BYTES:
            raise ConstraintError(f"{len(text)} characters: expected at most {MAX_BYTES}")
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
            else:
                found = self._used.get(text)
        if isinstance(found, Grammar) and found.is_slow:
            raise ConstraintError(TOO_SLOW)
        if found is None or (isinstance(found, Grammar) and found.spoiled):
            found = self._compile_within_memory(constraint, text, vocab_size)
        if isinstance(found, str):
            raise ConstraintError(found)
        return found

    def _compile_within_memory(self, constraint: Constraint, text: str, vocab_size: int) -> Grammar | str:
        with self._lock:
            while self._kept and self.memory.is_full_for(text):
                self._drop_oldest()
        self.memory.take(text)
        found: Grammar | str = ""
        try:
            found = self._compile(constraint, text, self._tokens(vocab_size), vocab_size)
        finally:
            if isinstance(found, Grammar):
                self.memory.give_back_after(found, text)
                self._used[text] = found
            else:
                self.memory.give_back(text)
        self._keep(text, found)
        return found

    def _tokens(self, vocab_size: int) -> "LLTokenizer":
        _require_version()
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _library_tokenizer(self._json, vocab_size, self._end_ids)
        return self._tokenizer

    def _compile(self, constraint: Constraint, text: str, tokenizer: "LLTokenizer", vocab_size: int) -> Grammar | str:
        from llguidance import LLMatcher

        matcher = LLMatcher(tokenizer, text, log_level=0, limits=_limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # a grammar without any text is found out here
        if matcher.is_error():
            reason = _explain(matcher.get_error())
            if isinstance(constraint, JsonSchema) and len(text) < _MAX_SEARCHED and reason != _NOTHING:
                schema = checked(constraint.schema, constraint.whitespace)
                if place := place_of(schema, lambda part: _reason(part, tokenizer)):
                    return f"at {place}: {reason}"
            return reason
        special = frozenset(self._special.values()).difference(self._end_ids)
        return Grammar(
            matcher,
            min(tokenizer.vocab_size, vocab_size),
            frozenset(self._end_ids or [tokenizer.eos_token]),
            special=special,
            tokenize=tokenizer.greedy_tokenize,
        )

    def _keep(self, text: str, grammar: Grammar | str) -> None:
        with self._lock:
            if text not in self._kept:
                self._kept_bytes += len(text)
            self._kept[text] = grammar
            while len(self._kept) > _MAX_KEPT or self._kept_bytes > _MAX_KEPT_BYTES:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest, _ = self._kept.popitem(last=False)
        self._kept_bytes -= len(oldest)


def _library_tokenizer(tokenizer_json: str, vocab_size: int, end_ids: list[int]) -> "LLTokenizer":
    """The tokenizer as the library wants it, which must have a token that ends the text.

    Told of none, it would take token 0 for that. A model without one gets one behind all tokens that have text.
    """
    from llguidance import LLTokenizer

    if end_ids:
        return LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=end_ids)
    end = LLTokenizer(tokenizer_json).vocab_size
    tokenizer = msgspec.json.decode(tokenizer_json)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = {"id": end, "content": _NO_END, "special": True, **flags}
    tokenizer["added_tokens"] = [*(tokenizer.get("added_tokens") or ()), added]
    return LLTokenizer(msgspec.json.encode(tokenizer).decode(), n_vocab=max(vocab_size, end + 1), eos_token=end)


def _require_version() -> None:
    """Raise ConstraintError for an llguidance that is too old."""
    found = version("llguidance")
    if tuple(map(int, found.split(".")[:2])) < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        raise ConstraintError(f"this engine's environment has llguidance {found}: expected {least} or newer")


def _limits() -> "LLParserLimits":
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, max_items_in_row=_MAX_ITEMS, verbose_errors=False)


def _reason(schema: dict[str, Any], tokenizer: "LLTokenizer") -> str | None:
    """Why a schema cannot be compiled; None if it can."""
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema(json_text(schema))
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer, limits=_limits())
    return _explain(messages[0]) if failed else None


def _explain(message: str) -> str:
    """The library's reason, without what only its authors can use and without the text made of a constraint."""
    message = message.replace("<non-verbose/>", "").strip()
    if message.startswith("NoExtension"):
        return _NOTHING
    message, _, _ = message.partition(f"\n   1 | {FIRST_LINE}")
    message = re.sub(r"^at \d+\(\d+\): (?=failed to compile JSON schema|invalid regex)", "", message)
    message = message.removeprefix("failed to compile JSON schema: ")
    if len(message) > _MAX_MESSAGE:  # what is wrong stands at its end, behind a long pattern
        message = f"{message[: _MAX_MESSAGE // 3]} ... {message[-_MAX_MESSAGE * 2 // 3 :]}"
    return message
