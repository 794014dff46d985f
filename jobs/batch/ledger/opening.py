"""One driver opens a ledger at a time, so that one alone decides what becomes of changed inputs and of errors."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .claims import Claims
from .signs import Signs

_NAME = "opening"
_LOOK_EVERY_S = 0.2
_TELL_AFTER_S = 5.0
_log = logging.getLogger(__name__)


@contextmanager
def alone(
    ledger: Path, signs: Signs, mine: str, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Callable[[], bool]]:
    """Wait until no other driver opens the ledger, and keep others waiting.

    Gives a function that tells whether that is still so: another driver may have taken this one for dead.

    Args:
        ledger: its folder.
        signs: those of the ledger; this driver's begins here, and is renewed meanwhile.
        mine: id of this driver.
        sleep: called between looks, with seconds.

    Raises BatchError.
    """
    claims = Claims(ledger, signs, mine)
    signs.begin(opening=True)
    with signs.renewed():
        waited_s = 0.0
        while not _take(claims):
            sleep(_LOOK_EVERY_S)
            waited_s += _LOOK_EVERY_S
            if waited_s >= _TELL_AFTER_S:
                _log.warning("%s: another driver opens it now (%s); waiting", ledger, _described(claims, signs))
                waited_s = float("-inf")
        try:
            yield lambda: claims.holder(_NAME) == mine
        finally:
            claims.give_back(_NAME)


def _take(claims: Claims) -> bool:
    claims.look()
    return claims.take(_NAME)


def _described(claims: Claims, signs: Signs) -> str:
    sign = signs.by_id(claims.holder(_NAME) or "")
    return "it has just ended" if sign is None else f"process {sign.process} on {sign.host}"
