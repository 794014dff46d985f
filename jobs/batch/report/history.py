"""Throughput over time: small records that each driver appends to a file of its own in the ledger.

LEDGER/history/DRIVER.jsonl has a record for each 5 s or so. Where there are many, neighbours are merged and the file
is replaced, so that the file of a week is as small as that of a day. A driver that is started again has a new file;
what a kill has left half written at the end of one is passed over.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from .tally import BatchState

STEP_S = 5.0
MOST_RECORDS = 2048  # of one driver
_SUMS = ("seconds", "rows", "failed", "prompt_tokens", "cached_tokens", "completion_tokens", "retries")


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done in the `seconds` before a time."""

    until: float  # Unix time
    seconds: float
    rows: float = 0  # settled; failed ones among them
    failed: float = 0
    prompt_tokens: float = 0  # cached ones among them
    cached_tokens: float = 0
    completion_tokens: float = 0
    retries: float = 0
    workers: int | None = None  # ready at the end of it
    reasons: dict[str, int] = {}  # of the rows that have failed
    is_first: bool = False  # a driver has begun with it

    @property
    def since(self) -> float:
        """When it began, Unix time."""
        return self.until - self.seconds

    def part(self, begin: float, end: float) -> "Span":
        """The part between two times that lie in it, as if all had been done evenly."""
        share = (end - begin) / self.seconds
        sums = {name: getattr(self, name) * share for name in _SUMS}  # reasons are not parted
        return msgspec.structs.replace(self, until=end, **sums, is_first=self.is_first and begin == self.since)


def joined(one: Span, other: Span) -> Span:
    """Two spans of one driver that follow each other, as one; a pause between them counts to it."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMS}
    sums["seconds"] = other.until - one.since
    reasons = dict(Counter(one.reasons) + Counter(other.reasons))
    return Span(until=other.until, **sums, workers=other.workers, reasons=reasons, is_first=one.is_first)


def coarser(spans: Sequence[Span]) -> list[Span]:
    """Half as many: neighbours are joined, the last one stays where their number is odd."""
    pairs = [joined(*spans[index : index + 2]) for index in range(0, len(spans) - 1, 2)]
    return [*pairs, spans[-1]] if len(spans) % 2 else pairs


def together(histories: Iterable[Sequence[Span]], buckets: int) -> list[Span]:
    """The sum over all drivers, in at most `buckets` spans of the same length; empty where nothing was done.

    `is_first` says that a driver has begun in it. Spans of `seconds` above 0 only. `workers` is the most of any driver,
    since all look at the same ones.
    """
    spans = [span for history in histories for span in history if span.seconds > 0]
    if not spans:
        return []
    begin, end = min(span.since for span in spans), max(span.until for span in spans)
    count = max(1, min(buckets, int((end - begin) / min(span.seconds for span in spans) + 1e-6)))
    width = (end - begin) / count
    found = [Span(until=begin + (index + 1) * width, seconds=width) for index in range(count)]
    for span in spans:
        first, last = (min(count - 1, max(0, int((at - begin) / width))) for at in (span.since, span.until))
        for index in range(first, last + 1):
            low, high = max(span.since, begin + index * width), min(span.until, begin + (index + 1) * width)
            if high > low:
                found[index] = _added(found[index], span.part(low, high), begins=index == first and span.is_first)
    return found


def _added(sum: Span, part: Span, *, begins: bool) -> Span:
    sums = {name: getattr(sum, name) + getattr(part, name) for name in _SUMS if name != "seconds"}
    known = [workers for workers in (sum.workers, part.workers) if workers is not None]
    return msgspec.structs.replace(sum, **sums, workers=max(known, default=None), is_first=sum.is_first or begins)


def busy(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """The times in which a driver was at work, without those in which none was."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted((span.since, span.until) for span in spans):
        if found and begin <= found[-1][1] + 1.0:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


class History:
    """The file of one driver, from its start to its end. It may wait for the disk: from a thread.

    Args:
        ledger: the folder of the batch's ledger.
        driver: names the file; another one for each driver and each of its starts.
        clock: Unix time.
    """

    def __init__(self, ledger: Path, driver: str, clock: Callable[[], float] = time.time) -> None:
        self.path = folder(ledger) / f"{driver}.jsonl"
        self._clock = clock
        self._spans: list[Span] = []
        self._step_s = STEP_S
        self._before: tuple[float, BatchState] | None = None

    def note(self, state: BatchState, *, is_last: bool = False) -> None:
        """Keep what was done since the last time, if it is time for it. Raises BatchError."""
        now = self._clock()
        if self._before is None:
            self._before = (now - state.elapsed_s, BatchState(total=0, answered=0, failed=0, elapsed_s=0.0))
        _, before = self._before
        if state.elapsed_s - before.elapsed_s < (1e-3 if is_last else self._step_s):
            return
        span = _between(now, before, state, is_first=not self._spans)
        self._before = now, state
        self._keep(span)

    def _keep(self, span: Span) -> None:
        self._spans.append(span)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if len(self._spans) > MOST_RECORDS:
                self._spans = coarser(self._spans)
                self._step_s *= 2
                self._replace()
            else:
                with self.path.open("ab") as file:
                    file.write(_line(span))
        except OSError as error:
            raise BatchError(f"cannot write {self.path}: {error.strerror}") from error

    def _replace(self) -> None:
        beside = self.path.with_name(f".{self.path.name}")
        beside.write_bytes(b"".join(map(_line, self._spans)))
        os.replace(beside, self.path)


def folder(ledger: Path) -> Path:
    """Where the files of all drivers are."""
    return ledger / "history"


def read(ledger: Path) -> list[list[Span]]:
    """The spans of each driver, in the order of time; lines that are none are passed over. Raises BatchError."""
    try:
        texts = [path.read_bytes() for path in sorted(folder(ledger).glob("*.jsonl")) if path.name[0] != "."]
    except OSError as error:
        raise BatchError(f"cannot read {folder(ledger)}: {error.strerror}") from error
    return [found for text in texts if (found := _spans(text))]


def _spans(text: bytes) -> list[Span]:
    found = []
    for line in text.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=Span))
        except (msgspec.MsgspecError, ValueError):
            continue  # torn by a kill or a full disk
    return sorted(found, key=lambda span: span.until)


def _line(span: Span) -> bytes:
    return msgspec.json.encode(span) + b"\n"


def _between(now: float, before: BatchState, state: BatchState, *, is_first: bool) -> Span:
    """What this driver alone has done between two looks."""
    reasons = dict(Counter(state.reasons) - Counter(before.reasons))
    return Span(
        until=now,
        seconds=state.elapsed_s - before.elapsed_s,
        rows=state.own - before.own,
        failed=sum(reasons.values()),
        reasons=reasons,
        prompt_tokens=state.prompt_tokens - before.prompt_tokens,
        cached_tokens=state.cached_tokens - before.cached_tokens,
        completion_tokens=state.completion_tokens - before.completion_tokens,
        retries=state.retries - before.retries,
        workers=state.workers,
        is_first=is_first,
    )
