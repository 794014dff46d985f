"""`python -m slurminfer.jobs.batch.submit OUTPUT`: a driver of a batch that was submitted, as a process."""

import argparse
import sys
from pathlib import Path

from ....core.errors import SlurminferError
from .entry import DriverEntry


def main() -> int:
    """Its exit status."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.jobs.batch.submit", description=__doc__)
    parser.add_argument("output", type=Path, help="the batch's output")
    try:
        DriverEntry(parser.parse_args().output)()
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
