"""What a person sees of an evaluation in a terminal."""

from pathlib import Path

from rich.text import Text

from ...core.files import encode_json
from ..plots import INSTALL, can_draw
from ..terminal.console import stderr, stdout
from ..terminal.table import figures_table
from .evaluation import BATCHES, EXACT_ORIGINAL, PAGE, QUANTIZED, Evaluation, Figures

_MIB = 1 << 20
_COLUMNS = ("", "ppl", "change", *(f"batch {batch}" for batch in BATCHES), "prefill", "weights", "KV/GiB")


def print_evaluation(evaluation: Evaluation, as_json: bool) -> None:
    """Print an evaluation as a table with three lines below it, or as JSON."""
    if as_json:
        print(encode_json(evaluation), end="")
        if not can_draw():
            stderr.print(_page(evaluation), soft_wrap=True)
        return
    table = figures_table(*_COLUMNS, tight=True)
    for figures in evaluation.variants:
        table.add_row(*_cells(figures))
    stdout.print(table)
    served, text = evaluation.variant(QUANTIZED).dtype, Path(evaluation.text).name
    stdout.print(
        f"ppl: perplexity on {evaluation.windows} windows of {evaluation.window} tokens of {text}; batch and prefill: "
        f"tokens/s; weights: MiB of memory; KV/GiB: tokens that fit; computed in {served} where it does not say",
        style="dim",
    )
    stdout.print(_summary(evaluation))
    stdout.print(_page(evaluation))


def _summary(evaluation: Evaluation) -> Text:
    return Text.assemble(
        (f"{evaluation.size_ratio:.2f} x smaller", "bold"),
        " on disk, perplexity ",
        (percent(evaluation.perplexity_change), "bold"),
        ", decodes ",
        (f"{evaluation.speedup(1):.2f} x", "bold"),
        f" as fast at batch 1 and {evaluation.speedup(16):.2f} x at batch 16",
    )


def _page(evaluation: Evaluation) -> str:
    page = Path(evaluation.quantized.path) / PAGE
    return str(page) if page.exists() else f"no {PAGE}: {INSTALL} draws the page"


def percent(change: float) -> str:
    """A relative change in percent, such as "+1.3%", or with two digits such as "+0.04%" below 0.1%."""
    return f"{change:+.{1 if abs(change) >= 0.001 else 2}%}"


def _cells(figures: Figures) -> tuple[str, ...]:
    if figures.name == EXACT_ORIGINAL:
        change = "reference"
    else:
        change = f"{percent(figures.perplexity_ratio - 1)} ± {100 * figures.perplexity_ratio_error:.1f}"
    return (
        figures.name,
        f"{figures.perplexity:.3f}",
        change,
        *(f"{figures.decode_tokens_per_s[batch]:.1f}" for batch in BATCHES),
        f"{figures.prefill_tokens_per_s:.0f}",
        f"{figures.weights_bytes / _MIB:.0f}",
        f"{figures.tokens_per_gib}",
    )
