"""Pages of plots, in one style. They need matplotlib, the optional extra `plots`, which takes a second to import."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = "pip install 'slurminfer[plots]'"
INK, GREY, RULE = "#1d2530", "#66707d", "#d5dae0"
_DPI = 100
_STYLE: Any = {
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "xtick.color": GREY,
    "ytick.color": INK,
    "xtick.labelsize": 11,
    "ytick.left": False,
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib(option: str) -> None:
    """Raise UsageError for an option that asks for a page where matplotlib is missing."""
    if not can_draw():
        raise UsageError(f"{option}: drawing a page needs matplotlib: {INSTALL}")


@contextmanager
def page(path: Path, width: int, height: int) -> Iterator["Figure"]:
    """A white figure of so many pixels, written to `path`, a .png, after the block."""
    import matplotlib
    from matplotlib.figure import Figure

    beside = path.with_name(f".{path.name}")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        yield figure
        figure.savefig(beside, format="png")
    os.replace(beside, path)
