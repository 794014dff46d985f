"""Where slurminfer keeps things for one user. Both places must lie on a filesystem that the compute nodes see."""

import os
from pathlib import Path

from . import files


def runs_root() -> Path:
    """Directory of all deployments: `$SLURMINFER_HOME/runs`, by default `~/.slurminfer/runs`."""
    return home() / "runs"


def models_root() -> Path:
    """Directory of fetched and converted models: `$SLURMINFER_HOME/models`, by default `~/.slurminfer/models`."""
    return home() / "models"


def jobs_root() -> Path:
    """Directory of single jobs' logs: `$SLURMINFER_HOME/jobs`, by default `~/.slurminfer/jobs`."""
    return home() / "jobs"


def site_root() -> Path:
    """Directory of what was measured of the cluster: `$SLURMINFER_HOME/site`, by default `~/.slurminfer/site`."""
    return home() / "site"


def make_home() -> None:
    """Make `home()` for this user alone. One that is there is closed to others if it is `~/.slurminfer`.

    A directory that `$SLURMINFER_HOME` names may hold other things, or be shared on purpose: its mode is the user's.
    Raises RunDirectoryError.
    """
    files.make_directory(home())
    if home() == _own_home():
        files.close_to_others(home())


def home() -> Path:
    """`$SLURMINFER_HOME`, by default `~/.slurminfer`."""
    return Path(os.environ.get("SLURMINFER_HOME") or _own_home()).absolute()


def _own_home() -> Path:
    return Path.home() / ".slurminfer"
