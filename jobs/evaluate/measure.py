"""Measuring the variants, each by processes of its own (worker.py), and the figures that follow."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import EngineError
from ...quant.progress import Progress
from ..measuring import run_worker
from .evaluation import BATCHES, Figures
from .sample import TextSample
from .variants import VARIANTS, Variant
from .worker import EngineResult, EvaluateTask

_GIB = 1 << 30
_WORKER = "slurminfer.jobs.evaluate.worker"


def measure(directories: Mapping[str, Path], sample: TextSample, progress: Progress) -> dict[str, list[EngineResult]]:
    """One result of each variant, and a second of those that are served.

    The second round, of speed only, goes backwards: whatever slows the machine down for a while should not hit one
    variant only.
    """
    results: dict[str, list[EngineResult]] = {variant.name: [] for variant in VARIANTS}
    rounds = [(variant, True) for variant in VARIANTS] + [
        (variant, False) for variant in reversed(VARIANTS) if variant.dtype == "auto"
    ]
    for done, (variant, scored) in enumerate(rounds):
        progress("measure", done, len(rounds))
        task = EvaluateTask(
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


def _run(name: str, task: EvaluateTask) -> EngineResult:
    try:
        return run_worker(_WORKER, task, EngineResult)
    except EngineError as error:
        raise EngineError(f"measuring {name}: {error}") from error


def figures(variant: Variant, results: Sequence[EngineResult], reference: Sequence[float]) -> Figures:
    """What a variant's results amount to; `reference` has the losses that its perplexity is compared with."""
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
