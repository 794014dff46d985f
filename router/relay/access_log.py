"""One line of JSON for each finished generation request, where the spec asks for it (`access_log = true`).

A line has no field for a prompt, an answer or a key, so none can get into it.
"""

import logging
import time
from collections.abc import Callable

import msgspec

_log = logging.getLogger(__name__)


class Access(msgspec.Struct, kw_only=True):
    """A finished request. Times are seconds; what is not known is left out of the line."""

    id: str  # X-Request-Id
    tenant: str
    path: str
    status: int  # 499: the client hung up
    seconds: float  # from its head to the last byte of its answer
    model: str | None = None
    worker: str | None = None  # that answered, or was asked last
    queue_s: float | None = None
    first_byte_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    generated_tokens: int | None = None
    attempts: int = 1


class AccessLog:
    """Writes the lines.

    Args:
        write: takes a line without its end. By default the log, at level INFO.
        clock: Unix seconds.
    """

    def __init__(self, write: Callable[[str], None] = _log.info, clock: Callable[[], float] = time.time) -> None:
        self._write, self._clock = write, clock
        self._encoder = msgspec.json.Encoder()

    def finished(self, access: Access) -> None:
        """Write down a request."""
        fields = {"time": round(self._clock(), 3), **msgspec.structs.asdict(access)}
        line = {name: _short(value) for name, value in fields.items() if value is not None}
        self._write(self._encoder.encode(line).decode())


def _short(value: object) -> object:
    """Figures without digits that mean nothing, and no more of a client's text than a line can bear."""
    if isinstance(value, float) and value < 1e9:
        return round(value, 4)
    return value[:200] if isinstance(value, str) else value
