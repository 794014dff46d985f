"""What the parts of the native engine's API cost, and whether their answers are right.

    python -m benchmarks.api [--part PART ...] [--quick] [--model DIRECTORY]

The parts are those of parts.py. Prints the figures that they are judged by and writes benchmarks/results/api.json,
where parts replace what was there of them. With --quick every part is small, and nothing is written unless --out says
where.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from slurminfer.core.files import encode_json, write_atomic
from slurminfer.quant.models import resolve

from ..machine import machine
from .parts import PARTS

RESULT = Path(__file__).parents[1] / "results/api.json"


def ratios(found: Mapping[str, Any]) -> dict[str, float | None]:
    """What the parts are judged by; None where a part was not measured."""
    return {
        name: found.get(part, {}).get(key) for part, about in PARTS.items() for name, (_, key) in about.judged.items()
    }


def show(judged: Mapping[str, float | None]) -> None:
    """Print the figures beside what they should be."""
    table = Table("figure", "found", "wanted", title="API of the native engine")
    wanted = {name: text for about in PARTS.values() for name, (text, _) in about.judged.items()}
    for name, value in judged.items():
        table.add_row(name, "not measured" if value is None else f"{value:,.4f}", wanted[name])
    Console().print(table)


def main() -> int:
    """Measure the parts that are asked for."""
    about = "\n".join(f"{name}: {part.about}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{about}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", type=Path, help="in place of the demo model")
    parser.add_argument("--out", type=Path, help="in place of benchmarks/results/api.json")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for name in given.part:
        where, began = machine(), time.monotonic()
        figures = PARTS[name].measure(given.model or resolve("demo"), given.quick)
        found[name] = {"machine": where, "minutes": (time.monotonic() - began) / 60, **figures}
    show(ratios(found))
    out = given.out or (None if given.quick else RESULT)
    if out is None:
        print(json.dumps(found, indent=2))
        return 0
    before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    merged = {name: part for name in PARTS if (part := found.get(name) or before.get(name)) is not None}
    write_atomic(out, encode_json({"ratios": ratios(merged), **merged}), mode=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
