"""What was predicted of a batch, kept in its ledger as `prediction.json`, and what has come of it."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .....core.errors import BatchError, RunDirectoryError
from .....core.files import encode_json, parse_versioned, read_text, write_atomic
from ..history import Span, busy
from ..interval import Interval
from ..resources import Resources
from ..words import about, figure, figures, percent, plural
from .sampled import SampleForecast

_VERSION = 1


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of the rows that are not settled yet. None: unknown."""

    version: int = _VERSION
    made_at: float  # Unix time
    rows: int  # that are not settled yet
    basis: str  # where the speed comes from, in words
    seconds: Interval | None = None
    rows_per_s: Interval | None = None
    prompt_tokens: Interval | None = None  # of a row
    completion_tokens: Interval | None = None  # of a row
    prompt_basis: str = ""  # how they were counted
    completion_basis: str = ""  # where the lengths of answers come from, or why they are unknown
    gpu_hours: Interval | None = None
    cpu_hours: Interval | None = None
    node_hours: Interval | None = None
    cost: Interval | None = None
    currency: str | None = None
    queue_wait: str = ""  # in words
    remarks: tuple[str, ...] = ()
    is_of_sample: bool = False  # rows of this batch were generated to measure its speed


def with_resources(prediction: Prediction, resources: Resources | None) -> Prediction:
    """The prediction with the hours and the cost of workers that are held for all of its time. Pure."""
    if resources is None or prediction.seconds is None:
        return prediction
    hours = prediction.seconds.times(1 / 3600)
    return msgspec.structs.replace(
        prediction,
        gpu_hours=hours.times(resources.gpus),
        cpu_hours=hours.times(resources.cpus),
        node_hours=hours.times(resources.nodes),
        cost=None if resources.cost_of_hour is None else hours.times(resources.cost_of_hour),
        currency=resources.currency,
    )


def of_sample(found: SampleForecast, rows: int, sampled: int, *, now: float | None = None) -> Prediction:
    """From what a sample says. Pure, but for the time."""
    remarks = []
    if not found.is_steady:
        remarks.append(
            f"the sample is small beside the requests in flight: it had no steady part, and the range is rough; "
            f"a larger one ({4 * sampled:,} rows) says more"
        )
    return Prediction(
        made_at=time.time() if now is None else now,
        rows=rows,
        basis=f"a sample of {sampled:,} rows"
        + (", without its beginning and its end" if found.is_steady else ", all of its time"),
        seconds=found.seconds,
        rows_per_s=found.rows_per_s,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        prompt_basis=f"as the endpoint counted them, {percent(found.cached_share)} of them cached",
        completion_basis="as in the sample",
        remarks=tuple(remarks),
        is_of_sample=True,
    )


def lines(prediction: Prediction) -> list[str]:
    """The prediction for a person. Pure."""
    found = [f"rows        {prediction.rows:,} to do"]
    if prediction.prompt_tokens is not None:
        found.append(f"tokens in   {figures(prediction.prompt_tokens)} a row, {prediction.prompt_basis}")
    if prediction.completion_tokens is not None:
        found.append(f"tokens out  {figures(prediction.completion_tokens)} a row, {prediction.completion_basis}")
    else:
        found.append(f"tokens out  unknown: {prediction.completion_basis}")
    if prediction.rows_per_s is not None:
        found.append(f"speed       {figures(prediction.rows_per_s)} rows/s, by {prediction.basis}")
    else:
        found.append(f"speed       unknown: {prediction.basis}")
    if prediction.seconds is not None:
        found.append(f"time        {about(prediction.seconds)}")
    found += [f"use         {words}" for words in [use_words(prediction)] if words]
    if prediction.queue_wait:
        found.append(f"queue       {prediction.queue_wait}")
    return [*found, *(f"            {remark}" for remark in prediction.remarks)]


def use_words(prediction: Prediction) -> str:
    """Hours and cost, in words; empty where they are unknown. Pure."""
    parts = []
    if prediction.gpu_hours is not None and prediction.gpu_hours.likely:
        parts.append(f"{figures(prediction.gpu_hours)} GPU-hours")
    elif prediction.cpu_hours is not None and prediction.cpu_hours.likely:
        parts.append(f"{figures(prediction.cpu_hours)} CPU-hours")
    if prediction.node_hours is not None and prediction.node_hours.likely:
        parts.append(f"{figures(prediction.node_hours)} node-hours")
    if prediction.cost is not None and prediction.currency is not None:
        parts.append(f"{figures(prediction.cost)} {prediction.currency}")
    return ", ".join(parts)


class Achieved(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of a prediction."""

    rows: int  # settled since it was made
    seconds: float  # in which a driver was at work since then
    predicted: Prediction
    ratio: float  # predicted time for so many rows, by the time that they took; 1: as predicted
    is_in_range: bool

    def words(self) -> str:
        """For a person."""
        speed = self.rows / self.seconds
        expected = self.predicted.rows_per_s
        range = f"{figures(expected)} rows/s" if expected is not None else "nothing"
        inside = "within the range" if self.is_in_range else "outside of the range"
        return f"{figure(speed)} rows/s where {range} were predicted ({inside}); {plural(self.rows, 'row')}"


def achieved(prediction: Prediction | None, spans: Sequence[Span]) -> Achieved | None:
    """What has come of it, by what was done since; None where it predicted no time, or nothing was done. Pure."""
    if prediction is None or prediction.seconds is None or prediction.rows <= 0:
        return None
    since = [
        span if span.since >= prediction.made_at else span.part(prediction.made_at, span.until)
        for span in spans
        if span.until > prediction.made_at and span.seconds > 0 and span.rows > 0
    ]
    rows, seconds = sum(span.rows for span in since), sum(end - begin for begin, end in busy(since))
    if rows < 1 or seconds <= 0:
        return None
    expected = prediction.seconds.times(rows / prediction.rows)
    return Achieved(
        rows=round(rows),
        seconds=seconds,
        predicted=prediction,
        ratio=expected.likely / seconds,
        is_in_range=expected.covers(seconds),
    )


def write_prediction(ledger: Path, prediction: Prediction) -> None:
    """Keep it; it replaces an earlier one. Raises BatchError."""
    try:
        ledger.mkdir(parents=True, exist_ok=True)
        write_atomic(_path(ledger), encode_json(prediction), mode=None)
    except OSError as error:
        raise BatchError(f"cannot make {ledger}: {error.strerror}") from error
    except RunDirectoryError as error:
        raise BatchError(str(error)) from error


def read_prediction(ledger: Path) -> Prediction | None:
    """The last one; None where there is none that can be read."""
    path = _path(ledger)
    try:
        text = read_text(path)
        return None if text is None else parse_versioned(path, text, Prediction, _VERSION, what="prediction")
    except RunDirectoryError:
        return None


def _path(ledger: Path) -> Path:
    return ledger / "prediction.json"
