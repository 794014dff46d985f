"""Evaluating a quantized checkpoint beside its original: perplexity, speed and memory.

Each variant (a checkpoint, computed in one way) is measured by processes of its own, see variants.py and measure.py.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.files import encode_json, write_atomic
from ...core.machine.readings import cpu_name
from ...quant.checkpoint.files import stored_bytes
from ...quant.progress import Progress, silent
from .. import plots
from .evaluation import EXACT_ORIGINAL, PAGE, Checkpoint, Evaluation, read_quantization
from .measure import figures, measure
from .sample import read_sample
from .variants import VARIANTS

DEFAULT_TEXT = "wiki"
_WINDOWS, _FEW_WINDOWS, _SMALL_MACHINE = 12, 4, 8  # the last in CPUs


def default_windows(cpus: int | None = None) -> int:
    """Windows of text to measure on where nobody says how many: fewer on a machine of few CPUs, by default this one."""
    return _FEW_WINDOWS if (cpus or len(os.sched_getaffinity(0))) < _SMALL_MACHINE else _WINDOWS


def evaluate(
    original: Path,
    quantized: Path,
    *,
    text: str = DEFAULT_TEXT,
    windows: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure all VARIANTS on `windows` pieces of a text, which `texts.read_text` finds by its name or path.

    By default there are as many as `default_windows` says.

    Writes evaluation.json and, with matplotlib, evaluation.png into `quantized`. Raises UsageError where the two cannot
    be compared, ModelError for what is wrong with one of them or with the text, EngineError where an engine fails.
    """
    if not os.access(quantized, os.W_OK):
        raise UsageError(f"cannot write evaluation.json and evaluation.png into {quantized}: copy the model first")
    windows = windows or default_windows()
    settings = _quantization_config(quantized)
    quantization = read_quantization(quantized)
    sample = read_sample(original, quantized, text, windows, progress)
    directories = {"original": original, "quantized": quantized}
    results = measure(directories, sample, progress)
    reference = results[EXACT_ORIGINAL][0].losses
    evaluation = Evaluation(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        model=original.name,
        original=_checkpoint(original),
        quantized=_checkpoint(quantized),
        method=str(settings.get("quant_method")),
        bits=_integer(settings, "bits"),
        group_size=_integer(settings, "group_size"),
        text=text,
        windows=windows,
        window=sample.window,
        cpu=cpu_name(),
        cpus=len(os.sched_getaffinity(0)),
        variants=tuple(figures(variant, results[variant.name], reference) for variant in VARIANTS),
        quantization=quantization,
    )
    write(evaluation, quantized)
    return evaluation


def write(evaluation: Evaluation, directory: Path) -> None:
    """Write evaluation.json, and evaluation.png where matplotlib is installed. Raises RunDirectoryError."""
    write_atomic(directory / "evaluation.json", encode_json(evaluation), mode=None)
    page = directory / PAGE
    if not plots.can_draw():
        page.unlink(missing_ok=True)  # of an evaluation before this one
        return
    from .page import draw

    draw(evaluation, page)


def _quantization_config(checkpoint: Path) -> dict[str, Any]:
    """config.json's `quantization_config`. Raises ModelNotFoundError, CorruptModelError, UsageError."""
    from ...quant.checkpoint.config import read_config
    from ...quant.checkpoint.files import read_json_object

    read_config(checkpoint)  # says what is wrong with it
    found = read_json_object(checkpoint / "config.json").get("quantization_config")
    if not found:
        raise UsageError(f"{checkpoint} is not quantized: its config.json has no quantization_config")
    return dict(found)


def _integer(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) else None


def _checkpoint(directory: Path) -> Checkpoint:
    return Checkpoint(path=str(directory), bytes=stored_bytes(directory))
