"""How much memory the grammars have that are kept or belong to requests: bounded by the lengths of their texts."""

import threading
import weakref

from .errors import GrammarsFullError
from .matcher import Grammar

MOST_BYTES = 1 << 21  # of text; compiled, each byte takes some 250
_LEAST = 1 << 13  # that a grammar counts: while text is generated, it grows whatever its own text is
_BIG = 1 << 14
_BIG_SHARE = 0.75  # that big grammars may have together: the rest is for small ones


class GrammarMemory:
    """The texts' bytes of all grammars that are alive. Its methods may be called in any thread."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._used = most, 0
        self._lock = threading.RLock()  # a grammar may end while a thread is in here

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return self._used

    def is_full_for(self, text: str) -> bool:
        """Whether a grammar of this text has to wait for others to end."""
        return self._used + _size(text) > (self._most if len(text) <= _BIG else _BIG_SHARE * self._most)

    def take(self, text: str) -> None:
        """Count a grammar. Raises GrammarsFullError where it has to wait for others to end."""
        with self._lock:
            if self.is_full_for(text):
                raise GrammarsFullError(
                    f"the grammars of requests in flight have {self._used} bytes and this one {_size(text)}: expected "
                    f"at most {self._most} together, {int(_BIG_SHARE * self._most)} where one has more than {_BIG}; "
                    "try again when others have ended"
                )
            self._used += _size(text)

    def give_back(self, text: str) -> None:
        """Count a grammar no more."""
        self._give_back(_size(text))

    def give_back_after(self, grammar: Grammar, text: str) -> None:
        """Count a grammar no more once nobody has it."""
        weakref.finalize(grammar, self._give_back, _size(text)).atexit = False

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


def _size(text: str) -> int:
    return max(len(text), _LEAST)
