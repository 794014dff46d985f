"""`python -m slurminfer.jobs.serve RUN_DIRECTORY`: the router and the controller as processes without Slurm."""

import argparse
import logging
import sys
from pathlib import Path

from ...core.errors import SlurminferError
from ...core.processes.process import accept_any_text
from ...core.rundir import RunDirectory
from .router_job import run_router_job


def main() -> int:
    """0 after a clean stop, 1 where it could not serve, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.jobs.serve", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run_router_job(RunDirectory(arguments.run_directory))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
