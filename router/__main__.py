"""`python -m slurminfer.router RUN_DIRECTORY`: the router as a process of its own."""

import argparse
import logging
import sys
from pathlib import Path

from ..core.errors import SlurminferError
from ..core.process import accept_any_text
from ..core.rundir import RunDirectory
from .main import run_router


def main() -> int:
    """0 after a clean stop, 1 where it could not serve, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.router", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run_router(RunDirectory(arguments.run_directory))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
