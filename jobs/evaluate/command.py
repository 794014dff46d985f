"""`slurminfer evaluate`: perplexity, speed and memory of a quantized model beside its original.

The life of a command: `evaluate` (evaluate.py) reads a sample of text (sample.py) and has every variant (variants.py)
measured by workers (measure.py, worker.py); what they found (evaluation.py) becomes JSON, a page (page.py) and a table
(table.py).
"""

from ...quant.models import resolve
from ..terminal.progress import model_progress
from .evaluate import DEFAULT_TEXT, evaluate
from .table import print_evaluation


def run(quantized: str, original: str, text: str | None, windows: int | None, as_json: bool) -> None:
    """Measure and print. Raises UsageError, ModelError, EngineError."""
    with model_progress() as progress:
        directories = [resolve(name, progress) for name in (original, quantized)]
        evaluation = evaluate(*directories, text=text or DEFAULT_TEXT, windows=windows, progress=progress)
    print_evaluation(evaluation, as_json)
