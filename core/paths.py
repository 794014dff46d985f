"""Where slurminfer keeps things for one user. Both places must lie on a filesystem that the compute nodes see."""

import os
from pathlib import Path


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


def home() -> Path:
    """`$SLURMINFER_HOME`, by default `~/.slurminfer`."""
    return Path(os.environ.get("SLURMINFER_HOME") or Path.home() / ".slurminfer").absolute()
