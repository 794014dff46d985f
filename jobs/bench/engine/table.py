"""What `slurminfer bench engine` found, for a person at a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ...terminal.console import stdout
from ...terminal.table import figures_table
from ...terminal.text import shown
from .results import EngineBench, LoadResult, quantile

_MIB = 1 << 20


def print_bench(found: EngineBench) -> None:
    """Print speeds as a table, then latency, memory and bandwidth in two lines."""
    seen = found.measured
    stdout.print(Text.assemble((shown(found.model), "bold"), shown(f" on {found.described}")))
    stdout.print(_speeds(found))
    stdout.print(_latencies(seen.load))
    stdout.print(
        f"loaded in {seen.load_s:.1f} s; memory at its peak {seen.peak_bytes / _MIB:.0f} MiB; a token takes "
        f"{seen.kv_bytes_per_token} bytes of KV cache; {seen.bandwidth / 1e9:.1f} GB/s of memory",
    )


def _speeds(found: EngineBench) -> Table:
    table = figures_table("", "tokens/s", "ms a step", "of memory bandwidth")
    for point in found.measured.decode:
        share = f"{found.roofline(point):.0%}" if found.measured.weight_bytes else ""
        name = f"decode, batch {point.batch}, context {point.context}"
        table.add_row(name, f"{point.tokens_per_s:.1f}", f"{1000 * point.step_s:.2f}", share)
    for prompt in found.measured.prefill:
        table.add_row(f"prefill, {prompt.tokens} tokens", f"{prompt.tokens_per_s:.0f}", f"{1000 * prompt.seconds:.1f}")
    return table


def _latencies(load: LoadResult) -> str:
    def both(values: Sequence[float]) -> str:
        return f"{1000 * quantile(values, 0.5):.0f} / {1000 * quantile(values, 0.95):.0f} ms"

    return (
        f"{len(load.ttft_s)} requests at {load.rate:.2f} a second: {load.tokens_per_s:.1f} tokens/s, first token after "
        f"{both(load.ttft_s)}, then one every {both(load.itl_s)} (median / 95th percentile)"
    )
