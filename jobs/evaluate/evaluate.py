"""`slurminfer evaluate`: perplexity, speed and memory of a quantized checkpoint beside its original.

Each variant (a checkpoint, computed in one way) is measured by processes of its own, see worker.py.
"""

import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...core.errors import CommandError, EngineError, UsageError
from ...core.files import write_atomic
from ...core.process import run
from ...quant.checkpoint.config import stored_bytes
from ...quant.progress import Progress, silent
from .evaluation import (
    BATCHES,
    EXACT_ORIGINAL,
    EXACT_QUANTIZED,
    ORIGINAL,
    QUANTIZED,
    Checkpoint,
    Evaluation,
    Figures,
    read_quantization,
)
from .worker import Result, Task

if TYPE_CHECKING:
    from ...nodes.native.tokenizer import Tokenizer

DEFAULT_TEXT, DEFAULT_WINDOWS = "wiki", 12
_WINDOW = 256  # tokens
_FEW_ROWS = 2  # tokens in a step that still use all kernels of decoding at batch 1, see linears/table.py
_MOST_CHARACTERS = 16  # of a token, on average
_TIMEOUT_S = 6 * 3600.0  # of one process; large models on few cores take that long
_GIB = 1 << 30


@dataclass(frozen=True)
class Variant:
    """One way to compute one of the two checkpoints."""

    name: str
    checkpoint: Literal["original", "quantized"]
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    chunk: int = _WINDOW  # tokens in a step of the perplexity


# The first is what the others' perplexities are compared with.
VARIANTS = (
    Variant(EXACT_ORIGINAL, "original", dtype="float32"),
    Variant(ORIGINAL, "original"),
    Variant(EXACT_QUANTIZED, "quantized", dtype="float32"),
    Variant(QUANTIZED, "quantized", chunk=_FEW_ROWS),
    *(
        Variant(f"{QUANTIZED}-kv-{kind}", "quantized", kv_cache_dtype=kind, chunk=_FEW_ROWS)
        for kind in ("int8", "int4")
    ),
)


def evaluate(
    original: Path,
    quantized: Path,
    *,
    text: str = DEFAULT_TEXT,
    windows: int = DEFAULT_WINDOWS,
    progress: Progress = silent,
) -> Evaluation:
    """Measure all VARIANTS on `windows` pieces of a text (see texts.read_text).

    Writes evaluation.json and evaluation.png into `quantized`. Raises UsageError where the two cannot be compared,
    ModelError for what is wrong with one of them or with the text, EngineError where an engine fails.
    """
    if not os.access(quantized, os.W_OK):
        raise UsageError(f"cannot write evaluation.json and evaluation.png into {quantized}: copy the model first")
    settings = _quantization_config(quantized)
    quantization = read_quantization(quantized)
    sample = _sample(original, quantized, text, windows, progress)
    directories = {"original": original, "quantized": quantized}
    results = _measure(directories, sample, progress)
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
        variants=tuple(_figures(variant, results[variant.name], reference) for variant in VARIANTS),
        quantization=quantization,
    )
    write(evaluation, quantized)
    return evaluation


def write(evaluation: Evaluation, directory: Path) -> None:
    """evaluation.json and evaluation.png. Raises RunDirectoryError."""
    from .page import draw

    encoded = msgspec.json.format(msgspec.json.encode(evaluation), indent=2).decode()
    write_atomic(directory / "evaluation.json", encoded + "\n")
    draw(evaluation, directory / "evaluation.png")


@dataclass(frozen=True)
class _Sample:
    """What the perplexity is of."""

    tokens: tuple[int, ...]
    bos_id: int | None  # what each window begins with, where the model's tokenizer begins texts so
    window: int


def _sample(original: Path, quantized: Path, text: str, windows: int, progress: Progress) -> _Sample:
    """The first tokens of the text, as many as the windows need. Raises UsageError, ModelError."""
    from ...nodes.native.tokenizer import Tokenizer
    from ...quant.checkpoint.config import read_config
    from ...quant.texts import read_text

    configs = [read_config(directory) for directory in (original, quantized)]
    window = min(_WINDOW, *(config.max_position_embeddings for config in configs))
    whole = read_text(text, progress)
    found = [_tokens(Tokenizer(directory), whole, windows * window) for directory in (original, quantized)]
    if found[0] != found[1]:
        raise UsageError(f"{quantized} has another tokenizer than {original}: their perplexities cannot be compared")
    tokens, bos_id = found[0]
    needed = windows * (window - (bos_id is not None))
    if len(tokens) < needed:
        raise UsageError(f"text {text}: {len(tokens)} tokens, but {windows} windows of {window} need {needed}")
    return _Sample(tokens[:needed], bos_id, window)


def _tokens(tokenizer: "Tokenizer", text: str, most: int) -> tuple[tuple[int, ...], int | None]:
    """At most `most` tokens of the text, and BOS if the tokenizer puts it before texts."""
    begin = tokenizer.encode("a", add_special_tokens=True)[:1]
    tokens = tokenizer.encode(text[: most * _MOST_CHARACTERS], add_special_tokens=False)
    return tuple(tokens[:most]), tokenizer.bos_id if begin == [tokenizer.bos_id] else None


def _measure(directories: Mapping[str, Path], sample: _Sample, progress: Progress) -> dict[str, list[Result]]:
    """One result of each variant, and a second of those that are served.

    The second round, of speed only, goes backwards: whatever slows the machine down for a while should not hit one
    variant only.
    """
    results: dict[str, list[Result]] = {variant.name: [] for variant in VARIANTS}
    rounds = [(variant, True) for variant in VARIANTS] + [
        (variant, False) for variant in reversed(VARIANTS) if variant.dtype == "auto"
    ]
    for done, (variant, scored) in enumerate(rounds):
        progress("measure", done, len(rounds))
        task = Task(
            model=str(directories[variant.checkpoint]),
            options={"dtype": variant.dtype, "kv_cache_dtype": variant.kv_cache_dtype},
            tokens=sample.tokens,
            bos_id=sample.bos_id,
            window=sample.window,
            chunk=variant.chunk if scored else None,
            batches=BATCHES,
        )
        results[variant.name].append(_run(variant.name, task))
    progress("measure", len(rounds), len(rounds))
    return results


def _run(name: str, task: Task) -> Result:
    argv = [sys.executable, "-m", "slurminfer.jobs.evaluate.worker"]
    try:
        return msgspec.json.decode(
            run(argv, stdin=msgspec.json.encode(task).decode(), timeout_s=_TIMEOUT_S), type=Result
        )
    except CommandError as error:
        said = error.stderr.splitlines()
        reason = said[-1].removeprefix("error: ") if said else str(error)
        raise EngineError(f"measuring {name}: {reason}") from error


def _figures(variant: Variant, results: Sequence[Result], reference: Sequence[float]) -> Figures:
    first = results[0]
    differences = [loss - other for loss, other in zip(first.losses, reference, strict=True)]
    ratio = math.exp(statistics.fmean(differences))
    steps = {batch: [s for result in results for s in result.times.decode[batch]] for batch in BATCHES}
    prefills = [seconds for result in results for seconds in result.times.prefill]
    return Figures(
        name=variant.name,
        checkpoint=variant.checkpoint,
        dtype=first.dtype,
        kv_cache_dtype=first.dtype if variant.kv_cache_dtype == "auto" else variant.kv_cache_dtype,
        perplexity=math.exp(statistics.fmean(first.losses)),
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio * statistics.stdev(differences) / math.sqrt(len(differences)),
        decode_tokens_per_s={batch: batch / statistics.median(seconds) for batch, seconds in steps.items()},
        prefill_tokens_per_s=first.times.prefill_tokens / statistics.median(prefills),
        weights_bytes=first.weights_bytes,
        peak_bytes=max(result.peak_bytes for result in results),
        kv_bytes_per_token=first.kv_bytes_per_token,
        tokens_per_gib=_GIB // first.kv_bytes_per_token,
    )


def _quantization_config(checkpoint: Path) -> dict[str, Any]:
    """config.json's `quantization_config`. Raises ModelNotFoundError, CorruptModelError, UsageError."""
    from ...nodes.native.tokenizer import read_model_json
    from ...quant.checkpoint.config import read_config

    read_config(checkpoint)  # says what is wrong with it
    found = read_model_json(checkpoint, "config.json").get("quantization_config")
    if not found:
        raise UsageError(f"{checkpoint} is not quantized: its config.json has no quantization_config")
    return dict(found)


def _integer(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) else None


def _checkpoint(directory: Path) -> Checkpoint:
    return Checkpoint(path=str(directory), bytes=stored_bytes(directory))


def cpu_name() -> str:
    """What this machine's processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
