"""Grammars' masks that take long: other threads compute them, and sequences whose mask is not there sit out steps."""

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cached_property

from ..grammar.threads import yield_to_others
from .request import Request

_THREADS = 2
_GRACE_S = 0.005  # that a step waits for masks which have begun after the last one
_IDLE_S = 0.02  # that the engine waits for a mask where it has nothing else to do, before it looks at its inbox


class LateMasks:
    """Masks that are being computed beside the engine's thread."""

    def __init__(self) -> None:
        self._begun: list[Future[bytes]] = []  # since the last step
        self._pending: list[Future[bytes]] = []

    def begin(self, requests: Iterable[Request]) -> None:
        """Begin the masks of these requests' next tokens, those of quick grammars excepted."""
        for request in requests:
            if request.params.grammar is None or request.failed:
                continue
            with suppress(Exception):  # it is raised again when the token is drawn, which ends the request
                request.matcher.begin(self._threads)
                if (pending := request.matcher.pending) is not None:
                    self._begun.append(pending)

    def settle(self) -> None:
        """Wait a moment for masks that have just begun: most are there soon, and their sequences go on in this step."""
        if self._begun:
            wait(self._begun, timeout=_GRACE_S)
            self._pending = [each for each in (*self._pending, *self._begun) if not each.done()]
            self._begun.clear()

    def wait(self) -> None:
        """Wait a moment for any mask, where nothing else is to be computed."""
        if self._pending:
            wait(self._pending, timeout=_IDLE_S, return_when=FIRST_COMPLETED)
            self._pending = [each for each in self._pending if not each.done()]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_THREADS, "masks", initializer=yield_to_others)
