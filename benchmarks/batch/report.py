"""The ratios of what was measured, and tables of them."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from .against_vllm import OURS

Found = Mapping[str, Any]

# Name: what it should be, and where it comes from.
RATIOS: dict[str, tuple[str, Callable[[Found], Any]]] = {
    "chaos_missing": ("0", lambda found: found["chaos"]["missing"]),
    "chaos_duplicate": ("0", lambda found: found["chaos"]["duplicate"]),
    "chaos_wrong": ("0", lambda found: found["chaos"]["wrong"]),
    "efficiency_vs_engine": ("at least 0.95", lambda found: found["efficiency"]["efficiency"]),
    "vs_vllm_run_batch": ("at least 1.5", lambda found: found["vllm"]["vs_vllm"][OURS]),
    "rows_per_s_driver": ("at least 5,000", lambda found: found["driver"]["jsonl"]["rows_per_s"]),
    "rss_mib_10m": ("flat", lambda found: found["resume"]["jsonl"]["peak_mib"]),
    "resume_s_10m": ("seconds", lambda found: found["resume"]["jsonl"]["resume_s"]),
    "predicted_vs_achieved": ("1", lambda found: found["prediction"]["ratio"]),
}


def ratios(found: Found) -> dict[str, float | None]:
    """By name; None where the part was not measured. Pure."""
    known: dict[str, float | None] = {}
    for name, (_, of) in RATIOS.items():
        try:
            known[name] = of(found)
        except KeyError:
            known[name] = None
    return known


def show(judged: Mapping[str, float | None]) -> None:
    """Print the ratios beside what they should be."""
    table = Table("ratio", "found", "wanted", title="slurminfer batch")
    for name, value in judged.items():
        table.add_row(name, "not measured" if value is None else f"{value:,.3f}", RATIOS[name][0])
    Console().print(table)
