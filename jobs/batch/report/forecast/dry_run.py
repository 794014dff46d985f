"""`slurminfer batch --dry-run`: three prompts as they would be sent, and what the batch will take. Nothing is sent."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from .....core.errors import ModelNotFoundError, SlurminferError
from .....core.job import JobRequest
from .....core.rundir import RunDirectory
from .....core.site.prices import read_prices
from .....core.spec.deployment import DeploymentSpec
from .....core.spec.files import parse_spec
from .....quant.models import already_here
from .....slurm import submit as slurm
from .....slurm.forecast import Forecast
from ....serve.router_link import ask_router
from ....terminal.console import stdout
from ...batch import Batch
from ...driver.selection import Selection
from ...inputs.building import Builder
from ...inputs.files import find
from ...inputs.planning import make_plan
from ...inputs.reader import Reader
from ...inputs.request import BatchRequest
from ...ledger.look import look
from ...outputs.schemas import check_kept, file_schemas
from .. import history
from ..interval import Interval, exactly
from ..resources import resources
from ..words import plural
from . import speed
from .drawn import Drawn, draw
from .prediction import Prediction, lines, read_prediction, with_resources, write_prediction
from .queue_wait import queue_wait
from .sampled import mean_of
from .tokens import EndpointTokens, ModelTokens, TokenCounter, counted, model_tokens, plain_text

_SHOWN = 3
_SHOWN_CHARACTERS = 2000
_SHOWN_PROBLEMS = 3
_SLURM_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Around:
    """What is known of the endpoint."""

    spec: DeploymentSpec | None = None
    workers_page: Any = None  # of the router of a deployment that runs
    wait: str = ""  # for workers, in words


def print_dry_run(batch: Batch, key: str | None) -> None:
    """Print it, and keep the prediction in the ledger's folder where it says a time. Raises UsageError, BatchError."""
    builder = Builder(batch.parameters)
    plan = make_plan(find(batch.inputs, batch.format))
    reader = Reader(plan)
    try:
        check_kept(plan, reader, file_schemas(plan, reader), batch.output.columns)
        drawn = draw(plan, reader, builder)
    finally:
        reader.close()
    around = _around(batch)
    model = _model_tokens(batch, around.spec)
    rows = Selection(plan, batch.limit, batch.sample).rows - _settled(batch.ledger)
    prediction = _predict(batch, drawn, max(0, rows), around, [each for each in [model, _page(batch, key)] if each])
    for line in [*prompts(drawn, model), *problems(drawn), *lines(prediction)]:
        stdout.print(line)
    if prediction.seconds is not None and rows > 0:
        write_prediction(batch.ledger, prediction)


def prompts(drawn: Drawn, model: ModelTokens | None) -> list[str]:
    """Three of the prompts as the model reads them, or as they are sent where its template is not known. Pure."""
    count = len(drawn.requests)
    shown = [drawn.requests[index] for index in sorted({0, count // 2, count - 1})[:_SHOWN]] if count else []
    found = []
    for request in shown:
        text = None if model is None else model.text(request)
        how = "as sent; the chat template of the model is not known here" if text is None else "as the model reads it"
        name = "" if request.id is None else f", id {request.id}"
        found.append(f"---- line {request.line}{name}: {request.path}, {how}")
        found += _cut(plain_text(request) if text is None else text).splitlines()
        found += [f"[then the user says] {_cut(turn)}" for turn in request.turns]
    return [*found, "----"] if found else ["no row asks for anything"]


def problems(drawn: Drawn) -> list[str]:
    """What is wrong with rows that were drawn. Pure."""
    if not drawn.problems:
        return []
    all = len(drawn.problems) + len(drawn.requests)
    head = f"{len(drawn.problems):,} of {all:,} rows that were looked at cannot be sent:"
    return [head, *(f"  {problem}" for problem in drawn.problems[:_SHOWN_PROBLEMS])]


def answer_tokens(
    batch: Batch, requests: Sequence[BatchRequest], earlier: Interval | None
) -> tuple[Interval | None, str]:
    """Tokens of a row's answers, and where they are known from, in words. Pure."""
    if earlier is not None:
        return earlier, "as those before"
    bounds = [_bound(batch, request) for request in requests]
    known = [bound for bound in bounds if bound is not None]
    if not known or len(known) < len(bounds):
        return None, "not every row has max_tokens"
    return exactly(sum(known) / len(known)), "max_tokens, the most that they can have"


def _predict(batch: Batch, drawn: Drawn, rows: int, around: Around, counters: Sequence[TokenCounter]) -> Prediction:
    counts, how = counted(counters, drawn.requests)
    before, histories = read_prediction(batch.ledger), history.read(batch.ledger)
    completion, why = answer_tokens(batch, drawn.requests, _earlier_answers(histories, before))
    prompt = mean_of([float(count) for count in counts])
    found = speed.of_earlier(histories, rows) or speed.of_prediction(before, rows) if rows else None
    if found is None and prompt is not None and completion is not None and rows:
        found = speed.of_workers(around.workers_page, rows, prompt.likely, completion.likely)
    prediction = Prediction(
        made_at=time.time(),
        rows=rows,
        basis=speed.UNKNOWN if found is None else found.basis,
        seconds=None if found is None else found.seconds,
        rows_per_s=None if found is None else found.rows_per_s,
        prompt_tokens=prompt,
        completion_tokens=completion,
        prompt_basis=f"{how} in {plural(len(counts), 'row')}",
        completion_basis=why,
        queue_wait=around.wait,
        remarks=() if found is None else found.remarks,
        is_of_sample=found is not None and found.is_of_sample,
    )
    if around.spec is None:
        return prediction
    return with_resources(prediction, resources(around.spec, _ready(around.workers_page), read_prices()))


def _around(batch: Batch) -> Around:
    where = batch.endpoint
    if where.run is not None:
        run = RunDirectory.existing(where.run)
        page = None
        with suppress(SlurminferError):
            page = (ask_router(run, run.read_router(), "/workers") or [None])[0]
        return Around(spec=run.read_spec(), workers_page=page)
    if where.spec is not None:
        spec = parse_spec(where.spec)
        ask: Callable[[JobRequest], Forecast] = partial(slurm.SlurmLauncher().forecast, timeout_s=_SLURM_S)
        return Around(spec=spec, wait="" if where.local else queue_wait(spec, ask))
    return Around()


def _model_tokens(batch: Batch, spec: DeploymentSpec | None) -> ModelTokens | None:
    if spec is None:
        return None
    models = {spec.model_of(pool).served_name: spec.model_of(pool) for pool in spec.pool}
    name = batch.parameters.model or (next(iter(models)) if len(models) == 1 else None)
    with suppress(ModelNotFoundError):
        directory = already_here(models[name].path) if name in models else None
        return None if directory is None else model_tokens(directory)
    return None


def _page(batch: Batch, key: str | None) -> EndpointTokens | None:
    url = batch.endpoint.url
    return None if url is None else EndpointTokens(url, key, batch.parameters.model)


def _settled(ledger: Path) -> int:
    try:
        counts = look(ledger).counts
    except SlurminferError:
        return 0
    return counts.answered + counts.failed


def _earlier_answers(histories: Sequence[Sequence[history.Span]], before: Prediction | None) -> Interval | None:
    if before is not None and before.is_of_sample:
        return before.completion_tokens
    spans = [span for spans in histories for span in spans]
    rows = sum(span.rows - span.failed for span in spans)
    return exactly(sum(span.completion_tokens for span in spans) / rows) if rows >= 1 else None


def _bound(batch: Batch, request: BatchRequest) -> int | None:
    """The most tokens that a row's answers can have together; None where it does not say."""
    said = {name: msgspec.json.decode(value) for name, value in batch.parameters.sampling.items()} | request.body
    bound = next((said[name] for name in ("max_completion_tokens", "max_tokens") if said.get(name)), None)
    samples = said.get("n") or batch.parameters.samples
    if not isinstance(bound, int) or not isinstance(samples, int):
        return None
    return bound * samples * (1 + len(request.turns))


def _ready(page: Any) -> dict[str, int] | None:
    """Ready workers by pool; None where the router does not tell of any."""
    pools = [worker.get("pool") for worker in speed.workers_of(page) if worker.get("state") == "ready"]
    return {str(pool): pools.count(pool) for pool in pools} or None


def _cut(text: str) -> str:
    over = len(text) - _SHOWN_CHARACTERS
    return text if over <= 0 else f"{text[:_SHOWN_CHARACTERS]}… ({over:,} characters more)"
