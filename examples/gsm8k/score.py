"""Score answers to GSM8K by exact match. Usage: score.py ANSWERS.parquet|ANSWERS.jsonl

ANSWERS is the output of `slurminfer batch` on the data set: `answer` has the right answer after "####", and
`generated_text` the model's. The model's number is the one after its last "####", else the last number that it says.
"""

import re
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.json
import pyarrow.parquet

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def number_of(text: str) -> Decimal | None:
    """The number that a text ends with: "#### 1,250.00" is 1250; None where there is none."""
    before, mark, after = text.rpartition("####")
    found = (NUMBER.findall(after) if mark else [])[:1] or NUMBER.findall(before or after)[-1:]
    return Decimal(found[0].replace(",", "")) if found else None


def score(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Rows, those with the right number, those with none, those that were cut off, and those without an answer."""
    counts = {"rows": 0, "right": 0, "without a number": 0, "cut off": 0, "failed": 0}
    for row in rows:
        counts["rows"] += 1
        if row["error"] is not None:
            counts["failed"] += 1
            continue
        number = number_of(row["generated_text"])
        counts["right"] += number is not None and number == number_of(row["answer"])
        counts["without a number"] += number is None
        counts["cut off"] += row["finish_reason"] == "length"
    return counts


def main() -> None:
    path = Path(sys.argv[1])
    read = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.json.read_json
    columns = ["answer", "generated_text", "finish_reason", "error"]
    counts = score(read(path).select(columns).to_pylist())
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"exact match {counts['right'] / counts['rows']:.1%}: {told}")


if __name__ == "__main__":
    main()
