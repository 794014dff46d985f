"""Telling the router how far a batch is, through the run directory."""

import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from ....core.batches import TELL_EVERY_S, BatchRecord, forget_silent, remove_batch, write_batch
from ....core.errors import RunDirectoryError
from ....core.rundir import RunDirectory
from .pace import Pace
from .rates import TokenRates
from .tally import BatchState

_log = logging.getLogger(__name__)


class Telling:
    """Writes a driver's record now and then. What the filesystem refuses is logged once, and no reason to end.

    Args:
        run: the deployment that the batch runs through.
        output: of the batch; names it.
        driver: names the driver's file.
        clock: Unix time.
    """

    def __init__(self, run: RunDirectory, output: Path, driver: str, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._driver, self._clock = run.batches_path, driver, clock
        self._name = output.name[-200:]
        self._batch = hashlib.blake2b(
            str(output.absolute()).encode(errors="surrogateescape"), digest_size=8
        ).hexdigest()
        self._told_at: float | None = None
        self._complained = False

    def tell(self, state: BatchState, pace: Pace, rates: TokenRates) -> None:
        """Write the record if it is time for it. May wait for the disk: from a thread."""
        now = self._clock()
        if self._told_at is not None and now - self._told_at < TELL_EVERY_S:
            return
        first, self._told_at = self._told_at is None, now
        try:
            if first:
                forget_silent(self._folder, now)
            write_batch(self._folder, self._driver, self._record(state, pace, rates, now))
        except RunDirectoryError as error:
            self._complain(error)

    def end(self) -> None:
        """Remove the record."""
        try:
            remove_batch(self._folder, self._driver)
        except RunDirectoryError as error:
            self._complain(error)

    def _record(self, state: BatchState, pace: Pace, rates: TokenRates, now: float) -> BatchRecord:
        left = pace.left(state.left)
        return BatchRecord(
            batch=self._batch,
            name=self._name,
            written_at=now,
            began_at=now - state.elapsed_s,
            total=state.total,
            answered=state.answered,
            failed=state.failed,
            rows_per_s=pace.rows_per_s or 0.0,
            prompt_tokens_per_s=rates.prompt,
            completion_tokens_per_s=rates.completion,
            in_flight=state.in_flight,
            left_s=None if left is None else left.likely,
            left_low_s=None if left is None else left.low,
            left_high_s=None if left is None else left.high,
        )

    def _complain(self, error: RunDirectoryError) -> None:
        if not self._complained:
            _log.warning("the router's page does not show this batch: %s", error)
        self._complained = True
