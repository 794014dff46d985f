"""`slurminfer receipt`: print it."""

import time
from collections.abc import Sequence

from ...core.files import encode_json
from ...core.rundir import RunDirectory
from ..terminal.console import stdout
from ..terminal.table import figures_table
from ..terminal.text import shown
from .gather import gather
from .receipt import ChargeLine, Hours, PoolLine, Receipt, TokenLine, receipt_of


def print_receipt(run: RunDirectory, as_json: bool) -> None:
    """Print what a deployment has used, as tables or JSON. Raises as `gather`."""
    receipt = receipt_of(gather(run))
    if as_json:
        print(encode_json(receipt), end="")
        return
    _print_head(receipt)
    if receipt.pools:
        stdout.print(_totals(receipt))
        stdout.print()
        stdout.print(_parts(receipt.pools))
        stdout.print()
    if receipt.charged:
        stdout.print(_charged(receipt.charged))
        stdout.print()
    if receipt.tenants:
        stdout.print(_tokens("tenant (Slurm account)", [*receipt.tenants, receipt.tokens]))
        stdout.print()
    if receipt.accounts:
        stdout.print(_tokens("Slurm account", receipt.accounts))
        stdout.print()
    for line in _sums(receipt):
        stdout.print(shown(line), markup=False)
    for remark in receipt.remarks:
        stdout.print(shown(f"({remark})"), markup=False)


def _print_head(receipt: Receipt) -> None:
    state = "running" if receipt.is_running else "stopped"
    since = "" if receipt.since is None else time.strftime(", since %F %T", time.localtime(receipt.since))
    stdout.print(shown(f"{receipt.name}: {state}{since}"), markup=False)
    if not receipt.pools:
        stdout.print("no job has been noted yet")


def _totals(receipt: Receipt) -> object:
    cost = f"cost ({receipt.currency})" if receipt.currency else "cost"
    table = figures_table("pool", "jobs", "node-hours", "CPU-hours", "GPU-hours", cost, "kWh")
    for line in (*receipt.pools, receipt.total):
        table.add_row(
            shown(line.pool),
            f"{line.jobs:,}",
            _figure(line.total.node),
            _figure(line.total.cpu),
            _figure(line.total.gpu),
            "" if line.cost is None or receipt.currency is None else _figure(line.cost),
            "" if line.kwh is None else _figure(line.kwh),
        )
    return table


def _parts(pools: Sequence[PoolLine]) -> object:
    table = figures_table("pool", "hours of", "loading", "idle", "serving", "unseen", "overlap")
    for line in pools:
        parts = (line.loading, line.idle, line.serving, line.unseen, line.overlap)
        is_gpu = line.total.gpu > 0
        table.add_row(shown(line.pool), "GPUs" if is_gpu else "CPUs", *(_figure(_main(part, is_gpu)) for part in parts))
    return table


def _charged(lines: Sequence[ChargeLine]) -> object:
    table = figures_table("charged Slurm account", "jobs", "node-hours", "CPU-hours", "GPU-hours")
    for line in lines:
        total = line.total
        hours = (_figure(total.node), _figure(total.cpu), _figure(total.gpu))
        table.add_row(shown(line.account or "(none)"), f"{line.jobs:,}", *hours)
    return table


def _tokens(noun: str, lines: Sequence[TokenLine]) -> object:
    table = figures_table(noun, "requests", "prompt", "cached", "generated")
    for line in lines:
        name = line.name if line.account is None else f"{line.name} ({line.account})"
        counts = (line.requests, line.prompt_tokens, line.cached_tokens, line.generated_tokens)
        table.add_row(shown(name), *(f"{count:,}" for count in counts))
    return table


def _sums(receipt: Receipt) -> list[str]:
    lines = [
        f"tokens per {rate.hour_of}-hour of the workers: {rate.generated_tokens:,.0f} generated, "
        f"{rate.all_tokens:,.0f} with those of prompts"
        for rate in receipt.rates
    ]
    lines += [str(line) for line in receipt.harvests]
    total = receipt.total
    if total.energy_kwh is not None:
        lines.append(f"energy, measured by Slurm for whole nodes: {_figure(total.energy_kwh)} kWh")
    if total.read_kwh is not None:
        lines.append(f"energy, read by the workers on their nodes: {_figure(total.read_kwh)} kWh")
    if total.estimated_kwh is not None:
        lines.append(f"energy, estimated by the watts of the price table: {_figure(total.estimated_kwh)} kWh")
    if receipt.kg_co2 is not None:
        lines.append(f"carbon dioxide: {_figure(receipt.kg_co2)} kg")
    return lines


def _main(hours: Hours, is_gpu: bool) -> float:
    return hours.gpu if is_gpu else hours.cpu


def _figure(number: float) -> str:
    if 0 < number < 0.001:
        return "<0.001"
    return f"{number:,.3f}" if number < 10 else f"{number:,.1f}"
