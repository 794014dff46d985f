"""What tenants may do in a minute and in a day, over all relays.

Relays ask the board without locks. So requests that come to several relays in the same instant may all pass where only
one was left: at most as many too many as there are relays. Tokens are counted when an answer ends: those of requests in
flight come on top of the day's limit.
"""

import math
import time
from collections.abc import Callable, Mapping

from .refusal import Refused
from .tenant import Tenant

_DAY_S = 86_400
_Headers = list[tuple[bytes, bytes]]
# A tenant's column and a minute (Unix time // 60): requests in it and in the minute before, and tokens in all.
Spent = Callable[[int, int], tuple[int, int, int]]


class Quotas:
    """The limits of all tenants.

    Requests/min count in a window that slides: those of the minute before count with the part of that minute which is
    less than 60 s ago, as if they had come evenly.

    Args:
        spent: of the board.
        clock: Unix seconds.
    """

    def __init__(self, spent: Spent, clock: Callable[[], float] = time.time) -> None:
        self._spent, self._clock = spent, clock
        self._tokens_before: Mapping[str, int] = {}

    def set_tokens_before(self, tokens: Mapping[str, int]) -> None:
        """What is to be added to the tokens on the board for those of today, by tenant (`Tenants.tokens_today`)."""
        self._tokens_before = tokens

    def check(self, tenant: Tenant) -> None:
        """Raise Refused (429) if one more request is too many. The caller spends it on the board if it is not."""
        if tenant.requests_per_minute is None and tenant.tokens_per_day is None:
            return
        now = self._clock()
        requests, requests_before, tokens = self._spent(tenant.slot, int(now // 60))
        if (limit := tenant.tokens_per_day) is not None:
            used = self._tokens_today(tenant, tokens)
            if used >= limit:
                message = f"{tenant.name} has used {used} tokens today (UTC), of {limit} a day"
                raise Refused(429, message, _until_midnight_s(now), "insufficient_quota")
        if (limit := tenant.requests_per_minute) is not None:
            wait_s = _wait_s(limit, requests, requests_before, now % 60)
            if wait_s > 0:
                message = f"{tenant.name} has sent {limit} requests in a minute, which is its limit"
                raise Refused(429, message, math.ceil(wait_s), "rate_limit_exceeded")

    def headers(self, tenant: Tenant) -> _Headers:
        """What is left, for the head of an answer, with names and forms as those of OpenAI; none without limits."""
        if tenant.requests_per_minute is None and tenant.tokens_per_day is None:
            return []
        now = self._clock()
        requests, before, tokens = self._spent(tenant.slot, int(now // 60))
        found: _Headers = []
        if (limit := tenant.requests_per_minute) is not None:
            in_window = _in_window(requests, before, now % 60)
            reset_s = 120 - now % 60 if requests else 60 - now % 60 if before else 0.0
            found += _three(b"requests", limit, math.floor(limit - in_window), reset_s)
        if (limit := tenant.tokens_per_day) is not None:
            used = self._tokens_today(tenant, tokens)
            found += _three(b"tokens", limit, limit - used, _until_midnight_s(now) if used else 0.0)
        return found

    def _tokens_today(self, tenant: Tenant, on_board: int) -> int:
        return max(0, self._tokens_before.get(tenant.name, 0) + on_board)


def _in_window(requests: int, before: int, second: float) -> float:
    """Requests of the last 60 s, `second` seconds after the minute has begun."""
    return requests + before * (1 - second / 60)


def _wait_s(limit: int, requests: int, before: int, second: float) -> float:
    """Seconds until one more request is within the limit; 0 or less where it is now."""
    room = limit - 1
    if requests <= room:
        return 60 * (1 - (room - requests) / before) - second if before else 0.0
    return 60 - second + 60 * (1 - room / requests)


def _until_midnight_s(now: float) -> int:
    return math.ceil(_DAY_S - now % _DAY_S)


def _three(what: bytes, limit: int, left: int, reset_s: float) -> _Headers:
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % max(0, left)),
        (b"x-ratelimit-reset-" + what, _duration(reset_s)),
    ]


def _duration(seconds: float) -> bytes:
    """Such as 6h0m12s, 1m0s, 7s: the way OpenAI writes it."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
