"""How fast a batch will go, by what was measured before: of this batch, or of the deployment that it runs through."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import history
from ..history import Span
from ..interval import Interval
from ..pace import spread, time_for
from .prediction import Prediction

UNKNOWN = "nothing was measured yet; --sample 200 generates 200 rows of these and predicts the rest"
_LEAST_ROWS = 50
_LEAST_S = 20.0
_BLOCKS = 8
# Streams that are computed together are slower than alone, by how much is not known: n of them are n^these as fast.
_SLOWEST, _LIKELY, _FASTEST = 0.5, 0.8, 1.0


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds for rows, and where that is known from."""

    seconds: Interval
    rows_per_s: Interval
    basis: str
    remarks: tuple[str, ...] = ()
    is_of_sample: bool = False


def of_earlier(histories: Sequence[Sequence[Span]], rows: int) -> Speed | None:
    """By the rows of this batch that were done in the later half of its time; None where they are too few. Pure."""
    spans = [span for span in history.together(histories, 4096) if span.rows > 0]
    late = _later_half(spans)
    done, seconds = sum(span.rows for span in late), sum(span.seconds for span in late)
    if done < _LEAST_ROWS or seconds < _LEAST_S:
        return None
    size = max(1, len(late) // _BLOCKS)
    blocks = [late[index : index + size] for index in range(0, len(late), size)]
    rates = [sum(span.rows for span in block) / sum(span.seconds for span in block) for block in blocks]
    found = time_for(rows, done / seconds, spread(rates), len(rates), seconds / len(rates))
    return Speed(
        seconds=found,
        rows_per_s=found.inverse().times(rows),
        basis=f"the {done:,.0f} rows of this batch that were done last",
        remarks=("if as many workers are ready as then",),
    )


def of_prediction(earlier: Prediction | None, rows: int) -> Speed | None:
    """By what an earlier sample has predicted. Pure."""
    if (
        earlier is None
        or not earlier.is_of_sample
        or earlier.rows_per_s is None
        or earlier.seconds is None
        or earlier.rows <= 0
    ):
        return None
    return Speed(
        seconds=earlier.seconds.times(rows / earlier.rows),
        rows_per_s=earlier.rows_per_s,
        basis=earlier.basis,
        remarks=earlier.remarks,
        is_of_sample=True,
    )


def of_workers(page: Any, rows: int, prompt_tokens: float, completion_tokens: float) -> Speed | None:
    """By what the router has measured of each worker that is ready; None where it has measured nothing. Pure.

    Args:
        page: of the router, /workers.
        rows: of the batch.
        prompt_tokens: of a row.
        completion_tokens: of a row.
    """
    workers = [worker for worker in workers_of(page) if worker.get("state") == "ready" and worker.get("healthy")]
    measured = [worker for worker in workers if worker.get("prefill_rate") and worker.get("decode_rate")]
    if not measured or completion_tokens <= 0:
        return None
    low, likely, high = (
        sum(_rows_per_s(worker, prompt_tokens, completion_tokens, power) for worker in measured)
        * len(workers)
        / len(measured)
        for power in (_SLOWEST, _LIKELY, _FASTEST)
    )
    rates = Interval(low=low, likely=likely, high=high)
    return Speed(
        seconds=rates.inverse().times(rows),
        rows_per_s=rates,
        basis=f"what the router has measured of {len(measured)} of {len(workers)} workers",
        remarks=("rough: measured with other requests, under another load; --sample 200 measures it",),
    )


def _rows_per_s(worker: Mapping[str, Any], prompt_tokens: float, completion_tokens: float, power: float) -> float:
    """A worker reads prompts one after the other, and writes answers for many at once."""
    together = max(1, worker.get("capacity") or 1) ** power
    seconds = prompt_tokens / worker["prefill_rate"] + completion_tokens / (worker["decode_rate"] * together)
    return float(1 / seconds)


def workers_of(page: Any) -> list[Mapping[str, Any]]:
    """The workers of the router's page /workers; none where it is no such page. Pure."""
    found = page.get("workers") if isinstance(page, Mapping) else None
    return [worker for worker in found if isinstance(worker, Mapping)] if isinstance(found, list) else []


def _later_half(spans: Sequence[Span]) -> Sequence[Span]:
    half, seconds = sum(span.seconds for span in spans) / 2, 0.0
    for index in range(len(spans) - 1, -1, -1):
        seconds += spans[index].seconds
        if seconds >= half - 1e-9 and not math.isclose(seconds, 0.0):
            return spans[index:]
    return spans
