"""What a sample predicts of a whole batch, against what the batch takes: wall seconds.

Chat questions with answers as long as the model makes them, up to a limit, so that rows differ. `--sample` sends some
of the rows and writes the prediction into the ledger; then the same command without it does the rest. The prediction is
of the rows that were left, and so are the seconds: from the start of the second command to its end.
"""

import json
import sys
from pathlib import Path
from typing import Any

from slurminfer.jobs.batch.batch import ledger_of
from slurminfer.quant.models import resolve

from .commands import deployment, run, slurminfer
from .efficiency import SPEC
from .inputs import questions, write_lines

NAME = "prediction"
_MOST_TOKENS = 160


def measure(folder: Path, rows: int, sample: int, cpus: int) -> dict[str, Any]:
    """Predicted and achieved seconds, and what the batch itself says of them."""
    asked = [{"messages": [{"role": "user", "content": text}]} for text in questions(rows)]
    path, output = write_lines(folder / "rows.jsonl", asked), folder / "predicted.jsonl"
    spec = SPEC.format(name=NAME, model=resolve("demo"), dtype="auto", cpus=cpus)
    fields = ("--run", NAME, "--max-tokens", str(_MOST_TOKENS), "--temperature", "0")
    with deployment(folder, NAME, spec) as env:
        sampled = run(slurminfer("batch", path, output, *fields, "--sample", str(sample)), env)
        predicted = json.loads((ledger_of(output) / "prediction.json").read_text(encoding="utf-8"))
        whole = run(slurminfer("batch", path, output, *fields), env)
    summary = json.loads((ledger_of(output) / "summary.json").read_text(encoding="utf-8"))
    if summary["answered"] != rows:
        raise RuntimeError(f"{summary['answered']} of {rows} rows answered")
    seconds = predicted["seconds"]
    result = {
        "rows": rows,
        "sample": sample,
        "sample_s": sampled.seconds,
        "rows_left": predicted["rows"],
        "predicted_s": seconds,
        "achieved_s": whole.seconds,
        "ratio": seconds["likely"] / whole.seconds,
        "is_in_range": seconds["low"] <= whole.seconds <= seconds["high"],
        "told": summary["achieved"] and {name: summary["achieved"][name] for name in ("ratio", "is_in_range")},
    }
    print(f"prediction: {result}", file=sys.stderr)
    return result
