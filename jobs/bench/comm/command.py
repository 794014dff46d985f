"""`slurminfer bench comm`: how nodes communicate, measured and kept in the site profile.

The life of a command: `choose` (where.py) decides between this machine, a step and a job; `bench` (job.py) starts the
ranks (ranks.py), which meet (group.py) and measure (worker.py); lines through their times (fit.py) become the profile.
"""

import sys

from ....core.site.store import encode_comm, write_comm
from ...terminal.progress import model_progress
from . import job
from .table import print_comm
from .where import Asked, choose


def run(asked: Asked, sizes: str | None, backend: str, seconds: float, timeout_s: float, as_json: bool) -> None:
    """Measure, keep the profile and print it. Raises UsageError, SpecError, SlurmError, CommunicationError."""
    where = choose(asked)
    task = job.task(where, job.sizes(sizes or job.SIZES), backend, seconds, timeout_s)
    with model_progress() as progress:
        found = job.bench(where, task, progress)
    kept = write_comm(found)
    if as_json:
        sys.stdout.write(encode_comm(found))
    else:
        print_comm(found, kept)
