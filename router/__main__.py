"""`python -m slurminfer.router RUN_DIRECTORY`: the router as a process of its own."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from ..core.errors import SlurminferError
from ..core.processes.process import accept_any_text
from ..core.rundir import RunDirectory
from ..core.slurm_env import WALLTIME_SIGNAL
from .exits import COULD_NOT_SERVE, REQUEUE
from .main import run_router


def main() -> int:
    """A status of exits.py; 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.router", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(WALLTIME_SIGNAL, lambda *_: sys.exit(REQUEUE))  # as long as it does not serve yet
    try:
        return run_router(RunDirectory(arguments.run_directory))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return COULD_NOT_SERVE


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
