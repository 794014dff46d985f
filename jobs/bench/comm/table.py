"""What `slurminfer bench comm` found, for a person at a terminal."""

from pathlib import Path

from rich.table import Table

from ....core.site.communication import CommProfile
from ...terminal.console import stdout
from ...terminal.table import figures_table

_NAMES = {"all_reduce": "all-reduce", "all_gather": "all-gather", "send_recv": "send/recv"}
_UNITS = (("MiB", 1 << 20), ("KiB", 1 << 10))


def print_comm(profile: CommProfile, kept: Path) -> None:
    """Print measured times, then the lines through them; `kept` is the profile's file."""
    stdout.print(describe(profile))
    stdout.print(_times(profile))
    stdout.print(_lines(profile))
    stdout.print(f"kept in {kept}")


def describe(profile: CommProfile) -> str:
    """Who talked to whom through what, in one line."""
    count = len(profile.hosts)
    where = profile.hosts[0] if count == 1 else f"{count} nodes ({', '.join(profile.hosts)})"
    what = f"{profile.ranks} ranks on {where}: {profile.backend}"
    what += f" on {profile.gpu}" if profile.gpu else ""
    what += f", interface {profile.interface}" if profile.interface else ""
    local = "; processes of this machine, no network between them" if profile.partition is None else ""
    return f"{what}, PyTorch {profile.torch}{local}"


def _times(profile: CommProfile) -> Table:
    table = figures_table("", "bytes", "µs", "GB/s", "by the line, µs")
    for measured in profile.operations:
        for index, point in enumerate(measured.points):
            name = "" if index else _NAMES[measured.operation]
            line = measured.seconds(point.bytes)
            speed = f"{point.bytes / point.seconds / 1e9:.3f}"
            table.add_row(name, _size(point.bytes), _us(point.seconds), speed, _us(line))
    return table


def _lines(profile: CommProfile) -> Table:
    table = figures_table("t = α + β·bytes", "α, µs", "1/β, GB/s", "ring step α, µs", "1/β, GB/s", "error", "worst")
    for fit in profile.operations:
        step = _us(fit.step_alpha_s), _speed(fit.step_beta_s_per_byte)
        errors = f"{fit.error:.0%}", f"{fit.worst_error:.0%}"
        table.add_row(_NAMES[fit.operation], _us(fit.alpha_s), _speed(fit.beta_s_per_byte), *step, *errors)
    return table


def _size(count: int) -> str:
    return next((f"{count // unit} {name}" for name, unit in _UNITS if count % unit == 0), f"{count} B")


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:,.1f}"


def _speed(beta: float) -> str:
    return f"{1e-9 / beta:.3f}" if beta else "-"
