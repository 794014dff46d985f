"""The figures as tables, and as the ratios by which our router is judged."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from .measure import Figures
from .targets import BEFORE, CEILING, OURS, PEERS, STRAIGHT

Found = dict[str, Any]  # by part
CEIL = (CEILING, STRAIGHT, BEFORE)  # beside which nobody is judged


def ratios(found: Found) -> dict[str, float | None]:
    """Ours against the best of the compiled routers in each figure; None for what was not measured."""
    said: dict[str, float | None] = {}
    throughput: dict[str, dict[str, Figures]] = {
        key: value["medians"] for key, value in found.get("throughput", {}).items()
    }
    for count in (32, 256):
        said[f"rps_{count}_vs_best"] = _vs_best(throughput.get(f"requests {count}"), "requests_per_s", max)
    streams = throughput.get("streams 256")
    said["chunks_256_vs_best"] = _vs_best(streams, "events_per_s", max)
    said["event_cpu_vs_best"] = _vs_best(streams, "event_cpu_us", min)
    said["added_p50_ms"] = _added(throughput.get("requests 1"))
    said |= _shared(found.get("sharing", {}).get("shared"))
    chaos = found.get("chaos", {}).get(OURS, {})
    native = found.get("native", {}).get("chaos", {}).get(OURS, {})
    for name, key in (("chaos_lost", "lost"), ("chaos_silent_cuts", "silent_cuts"), ("chaos_wrong", "wrong")):
        said[name] = chaos[key] + native.get(key, 0) if key in chaos else None
    said["memory_growth_mib"] = found.get("memory", {}).get(OURS, {}).get("growth_mib")
    return said


def _vs_best(figures: dict[str, Figures] | None, key: str, best: Any) -> float | None:
    peers = [figures[name][key] for name in PEERS if name in figures] if figures else []
    return figures[OURS][key] / best(peers) if figures and OURS in figures and peers else None


def _added(figures: dict[str, Figures] | None) -> float | None:
    if not figures or OURS not in figures or STRAIGHT not in figures:
        return None
    return figures[OURS]["p50_ms"] - figures[STRAIGHT]["p50_ms"]


def _shared(found: dict[str, list[Figures]] | None) -> dict[str, float | None]:
    """The most tokens/s at any rate; and of p90 TTFT, the geometric mean of its ratio at all rates."""
    names = "shared_prefix_throughput_vs_best", "shared_prefix_p90_ttft_vs_best"
    peers = [found[name] for name in PEERS if name in found] if found else []
    if not found or OURS not in found or not peers:
        return dict.fromkeys(names)
    most = max(one["tokens_per_s"] for peer in peers for one in peer)
    pairs = [(one["p90_ttft_s"], min(peer[at]["p90_ttft_s"] for peer in peers)) for at, one in enumerate(found[OURS])]
    waits = statistics.geometric_mean(ours / best for ours, best in pairs)
    return dict(zip(names, (max(one["tokens_per_s"] for one in found[OURS]) / most, waits), strict=True))


def show(found: Found, judged: dict[str, float | None]) -> None:
    """Print a table for each part that was measured."""
    console = Console(width=140)
    for table in (
        *_throughput(found),
        *_sharing(found),
        *_counts(found),
        *_memory(found),
        *_public(found),
        *_native(found),
    ):
        console.print(table)
    table = Table("ratio", "slurminfer", title="against the best of sglang-router, smg and vllm-router")
    for name, value in judged.items():
        table.add_row(name, "not measured" if value is None else f"{value:.3f}")
    console.print(table)


def _throughput(found: Found) -> list[Table]:
    tables = []
    for title, part in found.get("throughput", {}).items():
        keys = list(next(iter(part["medians"].values())))
        tables.append(_table(title, keys, part["medians"]))
    return tables


def _sharing(found: Found) -> list[Table]:
    tables = []
    for load, routers in found.get("sharing", {}).items():
        rates = [one["rate"] for one in next(iter(routers.values()))]
        columns = [f"{rate:.0f}/s: tok/s, p90 TTFT, cached" for rate in rates]
        table = Table("router", *columns, title=f"prompts: {load}")
        for name, figures in routers.items():
            cells = [f"{one['tokens_per_s']:,.0f}  {one['p90_ttft_s']:.2f} s  {one['cached']:.0%}" for one in figures]
            table.add_row(name, *cells)
        tables.append(table)
    return tables


def _counts(found: Found) -> list[Table]:
    keys = ["right", "wrong", "silent_cuts", "lost", "refused", "resent", "killed", "relays_killed"]
    return [_table("chaos", keys, found["chaos"])] if "chaos" in found else []


def _memory(found: Found) -> list[Table]:
    if "memory" not in found:
        return []
    table = Table("router", "growth, MiB", "MiB before, a third, the end", title="long documents, all different")
    for name, one in found["memory"].items():
        sizes = one["mib"]
        table.add_row(
            name, f"{one['growth_mib']:.1f}", f"{sizes[0]:.0f}, {sizes[len(sizes) // 3]:.0f}, {sizes[-1]:.0f}"
        )
    return [table]


def _public(found: Found) -> list[Table]:
    return [
        _table(title, sorted({key for figures in routers.values() for key in figures}), routers)
        for title, routers in found.get("public", {}).items()
    ]


def _native(found: Found) -> list[Table]:
    return [
        _table(f"native workers: {title}", list(next(iter(routers.values()))), routers)
        for title, routers in found.get("native", {}).items()
    ]


def _table(title: str, keys: list[str], rows: dict[str, Any]) -> Table:
    keys = [key for key in keys if key != "reasons"]
    table = Table("router", *keys, title=title)
    for name, figures in rows.items():
        table.add_row(name, *(_cell(figures.get(key, 0)) for key in keys))
    return table


def _cell(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"
