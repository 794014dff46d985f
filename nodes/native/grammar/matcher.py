"""Where a sequence stands in its grammar: which tokens may come, and whether the answer is complete."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from typing import TYPE_CHECKING, TypeVar

from .errors import MatcherError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_Result = TypeVar("_Result")

# All sequences of a step wait for each other's masks. Those of a usual grammar take less than a millisecond.
_USUAL_S = 0.003  # of a CPU, for one token
_MOST_DEBT_S = 2.0  # that a grammar may have taken beyond that
# Of a grammar whose last masks took less, they are computed at once: to hand one to another thread takes as long.
_QUICK_S = 0.001
_FORGET = 0.95  # of the longest time, at each mask
TOO_SLOW = f"each token takes more than {_USUAL_S * 1000:g} ms of computing what may come next"


class Grammar:
    """A compiled constraint, shared by all sequences that have it."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_debt",
        "_end_ids",
        "_longest_s",
        "_matcher",
        "is_slow",
        "special",
        "spoiled",
        "tokenize",
        "vocab_size",
    )

    def __init__(
        self,
        matcher: "LLMatcher",
        vocab_size: int,
        end_ids: frozenset[int],
        clock: Callable[[], float] = time.thread_time,
        *,
        special: frozenset[int] = frozenset(),
        tokenize: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        """
        Args:
            matcher: at the beginning of the text.
            vocab_size: bits of a mask.
            end_ids: tokens that the library allows where the grammar accepts.
            clock: seconds of a CPU that the thread has had.
            special: tokens that stand for no text, whatever their names are; without `end_ids`.
            tokenize: writes a text without these.
        """
        self._matcher, self.vocab_size, self._end_ids, self._clock = matcher, vocab_size, end_ids, clock
        self.special, self.tokenize = special, tokenize
        self.spoiled = False  # it has met a limit of the library: all that share it would
        self.is_slow = False  # its tokens took too long: others would have to wait
        self._debt = 0.0
        self._longest_s = 2 * _QUICK_S  # of its masks, the last ones above all

    @property
    def is_quick(self) -> bool:
        """Whether the next mask will hardly hold up those who wait for it."""
        return self._longest_s < _QUICK_S

    @property
    def is_heavy(self) -> bool:
        """Whether its masks take longer than those of usual grammars."""
        return self._longest_s >= _USUAL_S

    def matcher(self, stop_ids: frozenset[int] = frozenset()) -> "Matcher":
        """A matcher at the beginning of the text. `stop_ids`: the tokens that end this sequence."""
        return Matcher(self, self._matcher.deep_copy(), self._end_ids, stop_ids)

    def measure(self, work: Callable[[], _Result], tokens: int = 0) -> _Result:
        """What `work` returns, which so many tokens need; its time counts. Raises MatcherError once it was too much."""
        if self.is_slow:
            raise MatcherError(TOO_SLOW)
        begun = self._clock()
        result = work()
        taken = self._clock() - begun
        if tokens:
            self._longest_s = max(_FORGET * self._longest_s, taken / tokens)
        self._debt = max(self._debt + taken - tokens * _USUAL_S, 0.0)
        if self._debt > _MOST_DEBT_S:
            self.is_slow = True
            raise MatcherError(TOO_SLOW)
        return result


class Matcher:
    """One sequence in its grammar. For one thread at a time."""

    __slots__ = ("_added", "_dropped", "_grammar", "_library", "_mask", "_pending")

    def __init__(
        self, grammar: Grammar, library: "LLMatcher", end_ids: frozenset[int], stop_ids: frozenset[int]
    ) -> None:
        self._grammar, self._library = grammar, library
        self._added = sorted(stop_ids - end_ids)  # they end the text where the grammar accepts, and only there
        self._dropped = sorted(end_ids - stop_ids)  # the request ignores them
        self._mask: bytes | None = None  # None: not computed since the last token
        self._pending: Future[bytes] | None = None  # the mask that another thread computes

    def begin(self, threads: Executor) -> None:
        """Let another thread compute the mask that `fill` will be asked for, unless it takes hardly any time."""
        if self._mask is None and self._pending is None and not self._grammar.is_quick:
            self._pending = threads.submit(self._compute)

    @property
    def pending(self) -> "Future[bytes] | None":
        """The mask that another thread still computes: until it is there, the sequence cannot go on."""
        return None if self._pending is None or self._pending.done() else self._pending

    def fill(self) -> bytes:
        """A bit for each token, lowest first in each byte: 1, it may come. Computed once for each token.

        Raises MatcherError where the library meets one of its limits, or nothing may come.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return pending.result()
        return self._compute()

    def _compute(self) -> bytes:
        if self._mask is None:
            mask = self._grammar.measure(self._library.compute_bitmask, tokens=1)
            self._check()
            mask = self._without_names(mask)
            if self._added or self._dropped:
                mask = self._with_stops(mask)
            self._mask = mask[: (self._grammar.vocab_size + 7) // 8]
            if not any(self._mask):
                raise MatcherError("the grammar allows no token that the model has")
        return self._mask

    def accept(self, token: int) -> None:
        """Go on by one token of the text. Raises MatcherError if the grammar does not allow it."""
        self._settle()
        self._mask = None
        accepted = self._grammar.measure(lambda: self._library.consume_token(token))
        if not accepted:
            if "doesn't satisfy the grammar" not in self._error:
                self._check()
            raise MatcherError(f"the grammar does not allow token {token}")

    @property
    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        return bool(self._library.is_accepting())

    @property
    def is_complete(self) -> bool:
        """Whether the text must end here."""
        return bool(self._library.is_stopped())

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, from the first on, may come next. Nothing changes. Raises MatcherError."""
        self._settle()
        return int(self._grammar.measure(lambda: self._library.validate_tokens(list(tokens)), tokens=len(tokens)))

    def forced(self) -> list[int]:
        """The tokens that write what must come next, as the tokenizer would; mostly none. Raises MatcherError."""
        self._settle()
        return list(self._grammar.measure(self._library.compute_ff_tokens, tokens=1))

    def _settle(self) -> None:
        """Wait until no other thread uses the library's matcher."""
        if self._pending is not None:
            wait([self._pending])

    def _without_names(self, mask: bytes) -> bytes:
        """The mask; of text that must come and is the name of a special token, the first token of the text.

        The library allows the special token there, as a tokenizer reads its name, and then does not take it.
        """
        token = _only(mask)
        if token not in self._grammar.special or self._grammar.tokenize is None:
            return mask
        if self._library.validate_tokens([token]):
            return mask
        text = self._library.compute_ff_bytes().decode(errors="ignore")
        bits = bytearray(len(mask))
        for each in self._grammar.tokenize(text)[:1]:
            _set(bits, each, True)
        return bytes(bits)

    def _with_stops(self, mask: bytes) -> bytes:
        accepting, bits = self.is_accepting, bytearray(mask)
        for token in self._added:
            _set(bits, token, accepting)
        if not self.is_complete:
            for token in self._dropped:
                _set(bits, token, False)
        return bytes(bits) if any(bits) else mask

    @property
    def _error(self) -> str:
        return str(self._library.get_error()).replace("<non-verbose/>", "").strip()

    def _check(self) -> None:
        if self._library.is_error():
            self._grammar.spoiled = True
            reason = "no text that it allows begins so" if self._error.startswith("NoExtension") else self._error
            raise MatcherError(f"the grammar cannot go on: {reason}")


def _only(mask: bytes) -> int | None:
    """The token that a mask allows, if it is the only one."""
    written = mask.strip(b"\0")
    if len(written) != 1 or written[0].bit_count() != 1:
        return None
    return 8 * mask.index(written) + written[0].bit_length() - 1


def _set(bits: bytearray, place: int, value: bool) -> None:
    byte, bit = place >> 3, 1 << (place & 7)
    if byte < len(bits):
        bits[byte] = bits[byte] | bit if value else bits[byte] & ~bit
