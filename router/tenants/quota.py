"""What tenants may do in a minute and in a day, over all relays.

Relays ask the board without locks. So requests that come to several relays in the same instant may all pass where only
one was left: at most as many too many as there are relays. Tokens are counted when an answer ends. Until then, what one
is expected to use is reserved: so many requests at once pass a day's limit by little more than one of them would.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from .refusal import Refused
from .tenant import Tenant

_DAY_S = 86_400
_LEFT = b"x-ratelimit-limit-WHAT: %d\r\nx-ratelimit-remaining-WHAT: %d\r\nx-ratelimit-reset-WHAT: %b\r\n"
_REQUESTS, _TOKENS = _LEFT.replace(b"WHAT", b"requests"), _LEFT.replace(b"WHAT", b"tokens")
# A tenant's column and a minute (Unix time // 60): requests in it and in the minute before, tokens in all, and those
# that its requests in flight may use.
Spent = Callable[[int, int], tuple[int, int, int, int]]
_IN_FLIGHT_S = 5  # after which some of the requests in flight may have ended with less than was reserved


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

    def standing(self, tenant: Tenant) -> "Standing | None":
        """How a tenant stands now; None for one without limits."""
        if tenant.requests_per_minute is None and tenant.tokens_per_day is None:
            return None
        now = self._clock()
        requests, before, tokens, reserved = self._spent(tenant.slot, int(now // 60))
        used = self._tokens_before.get(tenant.name, 0) + tokens
        return Standing(tenant, now, requests, before, used if used > 0 else 0, reserved)

    def require_tokens(self, tenant: Tenant) -> None:
        """Raise Refused (429) where the tokens of today are used, or reserved for requests in flight."""
        standing = self.standing(tenant)
        if standing is not None:
            standing.require_tokens()


class Standing(msgspec.Struct):
    """What a tenant with limits has used, at a time."""

    tenant: Tenant
    now: float  # Unix seconds
    requests: int  # in this minute
    before: int  # in the minute before
    used: int  # tokens today (UTC)
    reserved: int  # tokens that its requests in flight may use

    def require_one_more(self) -> None:
        """Raise Refused (429) if one more request is too many. The caller spends it on the board if it is not."""
        self.require_tokens()
        limit = self.tenant.requests_per_minute
        if limit is None:
            return
        wait_s = _wait_s(limit, self.requests, self.before, self.now % 60)
        if wait_s > 0:
            message = f"{self.tenant.name} has sent {limit} requests in a minute, which is its limit"
            raise Refused(429, message, math.ceil(wait_s), "rate_limit_exceeded")

    def require_tokens(self) -> None:
        """Raise Refused (429) where the tokens of today are used, or reserved for requests in flight."""
        limit = self.tenant.tokens_per_day
        if limit is None or self.used + self.reserved < limit:
            return
        message = f"{self.tenant.name} has used {self.used} tokens today (UTC), of {limit} a day"
        if self.used >= limit:
            raise Refused(429, message, _until_midnight_s(self.now), "insufficient_quota")
        message += "; its requests that are not answered yet may use the rest"
        raise Refused(429, message, _IN_FLIGHT_S, "rate_limit_exceeded")

    def lines(self) -> bytes:
        """What is left, as complete lines of an answer's head, with names and forms as those of OpenAI."""
        lines, second = b"", self.now % 60
        if (limit := self.tenant.requests_per_minute) is not None:
            left = math.floor(limit - _in_window(self.requests, self.before, second))
            reset_s = 120 - second if self.requests else 60 - second if self.before else 0.0
            lines = _REQUESTS % (limit, left if left > 0 else 0, _duration(math.ceil(reset_s)))
        if (limit := self.tenant.tokens_per_day) is not None:
            left = limit - self.used - self.reserved
            reset = _duration(_until_midnight_s(self.now) if self.used else 0)
            lines += _TOKENS % (limit, left if left > 0 else 0, reset)
        return lines


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


@lru_cache(maxsize=1024)
def _duration(seconds: int) -> bytes:
    """Such as 6h0m12s, 1m0s, 7s: the way OpenAI writes it."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, rest)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest
