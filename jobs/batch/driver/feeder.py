"""The thread that claims shards, reads their rows and makes requests of them, some way ahead of what is sent."""

import threading
from collections.abc import Callable, Iterator

import msgspec

from ..inputs.building import Builder
from ..inputs.plan import Shard
from ..inputs.reader import Reader
from ..inputs.request import BadRowError, BatchRequest
from ..inputs.row import Row
from ..ledger.ledger import Ledger
from ..ledger.record import Record
from .lookahead import WINDOW_BYTES, LookAhead
from .selection import Selection
from .work import Work

_HUNGRY_ROWS = 64  # that are sent at once where nothing is left to send
_LOOK_EVERY_S = 2.0  # for shards that other drivers give up


class Feeder:
    """Feeds a look-ahead with all rows that are left to be sent, until none are left or it is stopped.

    Args:
        claims: held while the ledger's claims change.
        make_work: what is sent for a request.
        on_open: called before any row of a claimed shard is passed on, with the number of rows that will be.
        waits: for shards that other drivers have.
    """

    def __init__(
        self,
        ledger: Ledger,
        reader: Reader,
        builder: Builder,
        selection: Selection,
        ahead: LookAhead,
        *,
        claims: threading.Lock,
        make_work: Callable[[Shard, BatchRequest], Work],
        on_open: Callable[[Shard, int], None],
        waits: bool,
    ) -> None:
        self._ledger, self._reader, self._builder = ledger, reader, builder
        self._selection, self._ahead, self._make_work = selection, ahead, make_work
        self._on_open, self._waits = on_open, waits
        self._claims_lock = claims
        self._opened: set[int] = set()
        self._stopped = threading.Event()
        self._window: list[Work] = []
        self._window_bytes = 0

    def run(self) -> None:
        """Feed. Raises BatchError."""
        for shard in self._claims():
            if not self._feed(shard):
                return
        self._flush(last=True)

    def stop(self) -> None:
        """Have `run` return soon. From any thread."""
        self._stopped.set()
        self._ahead.close()

    def _claims(self) -> Iterator[Shard]:
        while not self._stopped.is_set():
            with self._claims_lock:
                shard = self._ledger.claim(self._is_wanted)
            if shard is not None:
                self._opened.add(shard.number)
                yield shard
                continue
            self._flush(last=True)
            if not self._waits or not self._others():
                return
            self._stopped.wait(_LOOK_EVERY_S)

    def _is_wanted(self, shard: Shard) -> bool:
        return shard.number not in self._opened and self._selection.count(shard) > 0

    def _others(self) -> bool:
        """Whether another driver has shards with rows that are wanted."""
        wanted = (shard for shard in self._ledger.plan.shards if self._is_wanted(shard))
        return any(not self._ledger.is_sealed(shard.number) for shard in wanted)

    def _feed(self, shard: Shard) -> bool:
        """Pass on the rows of a shard. False: no more are wanted."""
        with self._claims_lock:
            settled = self._ledger.settled(shard)
        chosen = self._selection.of(shard)
        wanted = {index for index in range(shard.rows) if index in chosen and index not in settled}
        self._on_open(shard, len(wanted))
        if not wanted:
            return True
        for row in self._reader.rows(shard):
            if row.index in wanted:
                wanted.discard(row.index)
                if not self._pass_on(shard, row):
                    return False
                if not wanted:
                    break
        return True

    def _pass_on(self, shard: Shard, row: Row) -> bool:
        if row.value is None:
            record = Record(index=row.index, blank=row.is_blank, error=self._where(shard, row))
            return self._ahead.settle(shard, record)
        try:
            work = self._make_work(shard, self._builder.build(row))
        except (BadRowError, RecursionError, msgspec.MsgspecError, ValueError, OverflowError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            return self._ahead.settle(shard, Record(index=row.index, error=reason))
        self._window.append(work)
        self._window_bytes += work.size
        is_full = len(self._window) >= self._ahead.window_rows or self._window_bytes >= WINDOW_BYTES
        if is_full or (len(self._window) >= _HUNGRY_ROWS and self._ahead.is_hungry):
            return self._flush(last=False)
        return not self._stopped.is_set()

    def _where(self, shard: Shard, row: Row) -> str | None:
        """What is wrong with a row that cannot be read, and where it is: the output has nothing else of it."""
        name = self._ledger.plan.files[shard.file].path.name
        return row.problem and f"{row.place} of {name}: {row.problem}"

    def _flush(self, last: bool) -> bool:
        window, self._window, self._window_bytes = self._window, [], 0
        return self._ahead.put(window, last=last) if window or last else True
