"""`slurminfer bench engine`: how fast the native engine computes a model on this machine, and how close to its memory.

The life of a command: `run` checks its options, `bench` (job.py) starts the worker (worker.py), whose figures
(results.py) become a table (table.py), JSON and a page (page.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....core.files import encode_json, write_atomic
from ....quant.models import resolve
from ... import plots
from ...terminal.progress import model_progress
from .job import bench, numbers
from .results import EngineBench
from .table import print_bench


def run(
    model: str,
    options: Mapping[str, Any],
    *,
    batches: str,
    contexts: str,
    prefills: str,
    rate: float | None,
    requests: int,
    page: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure and report. `options` are EngineOptions by name, None where they were not given; lists have commas.

    Raises UsageError, ModelError, EngineError.
    """
    if page is not None:
        plots.require_matplotlib("--page")
    with model_progress() as progress:
        given = {name: value for name, value in options.items() if value is not None}
        if "draft_model" in given:
            given["draft_model"] = str(resolve(given["draft_model"], progress))
        found = bench(
            resolve(model, progress),
            given,
            batches=numbers("--batches", batches),
            contexts=numbers("--contexts", contexts),
            prefills=numbers("--prefills", prefills),
            rate=rate,
            requests=requests,
            progress=progress,
        )
    report(found, as_json, page, out)


def report(found: EngineBench, as_json: bool, page: Path | None, out: Path | None) -> None:
    """Print as a table or as JSON; write the same JSON to `out` and a picture to `page`, if they are given."""
    encoded = encode_json(found)
    if out is not None:
        write_atomic(out, encoded, mode=None)
    if page is not None:
        from .page import draw

        draw(found, page)
    if as_json:
        print(encoded, end="")
    else:
        print_bench(found)
