"""Tasks that do something again and again, and go on where one round raises what nobody has foreseen.

rounds = Rounds()
task = asyncio.create_task(rounds.repeat("keys", self._watch_keys))

while True:
    await asyncio.sleep(1)  # outside of the guard: a round that always fails must not keep the process busy
    with rounds.guarded("clock"):
        self.tick()
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class Rounds:
    """Which rounds have failed: logged once for each kind of error, and counted.

    Args:
        failed: where failures are counted, by task; 0 from a task's first round on.
    """

    def __init__(self, failed: dict[str, int] | None = None) -> None:
        self.failed: dict[str, int] = {} if failed is None else failed
        self._logged: set[tuple[str, type, str, int]] = set()

    @contextmanager
    def guarded(self, task: str) -> Iterator[None]:
        """One round of `task`. An Exception goes no further; a cancellation does."""
        self.failed.setdefault(task, 0)  # what runs is seen not to have failed, too
        try:
            yield
        except Exception as error:
            self._note(task, error)

    async def repeat(self, task: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what does rounds of its own until it returns or is cancelled; after an Exception, again after a pause."""
        over = False
        while not over:
            with self.guarded(task):
                await run()
                over = True
            if not over:
                await asyncio.sleep(PAUSE_S)

    def _note(self, task: str, error: Exception) -> None:
        self.failed[task] += 1
        kind = (task, type(error), *_origin(error))
        if kind not in self._logged:
            self._logged.add(kind)
            _log.error("%s goes on after an error, which is logged this once", task, exc_info=error)


def _origin(error: Exception) -> tuple[str, int]:
    """Where it was raised: file and line."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return ("", 0) if traceback is None else (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
