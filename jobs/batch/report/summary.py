"""How a batch ended: for a person, as `summary.json` in its ledger, and as a picture of its throughput."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ....core.errors import BatchError, RunDirectoryError
from ....core.files import encode_json, write_atomic
from . import history, picture
from .consumption import Consumption
from .forecast.prediction import Achieved, achieved, read_prediction
from .history import Span
from .words import duration, figure, percent, plural

_VERSION = 1
_MOST_REASONS = 10
_SHOWN_REASONS = 3


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why rows have failed the last time that they were tried, or each time where several drivers overlap."""

    reason: str
    rows: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All runs and drivers of a batch until now. Times are Unix seconds."""

    version: int = _VERSION
    output: str
    written_at: float
    began_at: float
    rows: int  # of the input, or those of --limit or --sample; blank ones left out
    answered: int
    failed: int
    drivers: int  # starts of drivers
    retries: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    wall_s: float  # from the first start of a driver until now
    busy_s: float  # of which a driver was at work
    rows_per_s: float  # while a driver was at work
    tokens_per_s: float  # generated
    prompt_tokens_per_s: float
    reasons: tuple[Reason, ...] = ()  # the most frequent ones first
    used: Consumption | None = None
    achieved: Achieved | None = None
    tokens_per_s_over_time: tuple[float, ...] = ()  # in spans of the same length


def summary_of(
    output: Path,
    counts: tuple[int, int, int],
    histories: Sequence[Sequence[Span]],
    *,
    achieved: Achieved | None = None,
    used: Consumption | None = None,
    now: float | None = None,
) -> Summary | None:
    """Add it up; None where no driver has done anything. Pure, but for the time.

    Args:
        output: of the batch.
        counts: rows, answered ones, and failed ones.
        histories: of each driver.
        achieved: what has come of a prediction.
        used: by the deployment's jobs.
        now: Unix time.
    """
    spans = [span for spans in histories for span in spans]
    over_time = history.together(histories, picture.BUCKETS)
    if not over_time:
        return None
    rows, answered, failed = counts
    sums = {
        name: sum(getattr(span, name) for span in spans)
        for name in ("rows", "prompt_tokens", "cached_tokens", "completion_tokens", "retries")
    }
    busy_s = sum(end - begin for begin, end in history.busy(spans))
    reasons = _reasons(spans, failed)
    return Summary(
        output=str(output),
        written_at=time.time() if now is None else now,
        began_at=over_time[0].since,
        rows=rows,
        answered=answered,
        failed=failed,
        drivers=len([spans for spans in histories if spans]),
        retries=round(sums["retries"]),
        prompt_tokens=round(sums["prompt_tokens"]),
        cached_tokens=round(sums["cached_tokens"]),
        completion_tokens=round(sums["completion_tokens"]),
        wall_s=over_time[-1].until - over_time[0].since,
        busy_s=busy_s,
        rows_per_s=sums["rows"] / busy_s,
        tokens_per_s=sums["completion_tokens"] / busy_s,
        prompt_tokens_per_s=sums["prompt_tokens"] / busy_s,
        reasons=tuple(Reason(reason=reason, rows=count) for reason, count in reasons.most_common(_MOST_REASONS)),
        used=used,
        achieved=achieved,
        tokens_per_s_over_time=tuple(round(span.completion_tokens / span.seconds, 3) for span in over_time),
    )


def lines(summary: Summary) -> list[str]:
    """The summary for a person. Pure."""
    found = [
        f"rows        {summary.answered:,} of {summary.rows:,} answered, {figure(summary.rows_per_s)} rows/s",
        f"tokens      {summary.prompt_tokens:,} in ({percent(_share(summary.cached_tokens, summary.prompt_tokens))} "
        f"cached, {figure(summary.prompt_tokens_per_s)}/s), {summary.completion_tokens:,} out "
        f"({figure(summary.tokens_per_s)}/s)",
        f"time        {duration(summary.wall_s)}{_pauses(summary)}",
    ]
    if summary.retries:
        found.append(f"sent again  {plural(summary.retries, 'request')}")
    if summary.failed:
        found.append(f"failed      {plural(summary.failed, 'row')}; column 'error' says why")
        found += [f"            {one.rows:,} x {one.reason}" for one in summary.reasons[:_SHOWN_REASONS]]
    if summary.used is not None:
        found.append(f"used        {_use(summary.used)}")
    if summary.achieved is not None:
        found.append(f"predicted   {summary.achieved.words()}")
    if len(summary.tokens_per_s_over_time) >= 4:
        found.append(f"over time   {picture.sparkline(summary.tokens_per_s_over_time)}")
    return found


def write_summary(ledger: Path, summary: Summary, spans: Sequence[Span]) -> Path:
    """Write `summary.json` and `throughput.svg` into the ledger's folder; where the picture is. Raises BatchError."""
    drawn = ledger / "throughput.svg"
    try:
        write_atomic(ledger / "summary.json", encode_json(summary), mode=None)
        write_atomic(drawn, picture.svg(Path(summary.output).name, spans), mode=None)
    except RunDirectoryError as error:
        raise BatchError(str(error)) from error
    return drawn


def what_was_achieved(ledger: Path, histories: Sequence[Sequence[Span]]) -> Achieved | None:
    """What has come of the ledger's prediction."""
    return achieved(read_prediction(ledger), [span for spans in histories for span in spans])


def _reasons(spans: Sequence[Span], failed: int) -> Counter[str]:
    """Why rows have failed. A batch that was started again has tried all of its failed rows again."""
    since, _ = history.busy(spans)[-1]
    latest = sum((Counter(span.reasons) for span in spans if span.until > since), Counter[str]())
    if latest.total() == failed:
        return latest
    return sum((Counter(span.reasons) for span in spans), Counter[str]())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _pauses(summary: Summary) -> str:
    starts = f" in {summary.drivers:,} starts of drivers" if summary.drivers > 1 else ""
    idle = f", {duration(summary.busy_s)} of it at work" if summary.wall_s > 1.05 * summary.busy_s + 5 else ""
    return f"{starts}{idle}"


def _use(used: Consumption) -> str:
    hours = used.hours
    main = f"{figure(hours.gpu)} GPU-hours" if hours.gpu else f"{figure(hours.cpu)} CPU-hours"
    cost = "" if used.cost is None or used.currency is None else f", {figure(used.cost)} {used.currency}"
    return f"{main}, {figure(hours.node)} node-hours{cost}: all jobs of the deployment in this time"
