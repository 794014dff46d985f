"""`slurminfer logs`: what the jobs of a deployment have written."""

from collections.abc import Iterator
from pathlib import Path

from ...core.errors import RunNotFoundError
from ...core.logs.text import oldest_first, tail
from ...core.rundir import RunDirectory
from ...core.workers.ids import role_of


def log_files(run: RunDirectory, role: str | None) -> list[Path]:
    """Log files of one role ("router" or a worker's id) or of all, oldest first. Raises RunNotFoundError.

    Those of a job that several workers share are the logs of all of them.
    """
    roles = sorted(path.name for path in (run.path / "logs").glob("*") if path.is_dir())
    if role is not None and role not in roles:
        raise RunNotFoundError(f"no logs of '{role}' in {run.path / 'logs'}; there are: {', '.join(roles) or 'none'}")
    wanted = [name for name in roles if role in (None, name, role_of(name))]
    found = [path for name in wanted for kind in ("*.log", "*.out", "*.err") for path in run.logs_of(name).glob(kind)]
    return oldest_first(found)


def last_lines(path: Path, count: int) -> Iterator[str]:
    """The last `count` lines of a log."""
    yield from tail(path).splitlines()[-count:]
