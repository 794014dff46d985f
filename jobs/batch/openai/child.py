"""`python -m slurminfer.jobs.batch.openai.child RUN_DIRECTORY ID validate|do|fail`: the work on one batch.

It is a process of its own, so that nothing it meets harms other batches, and its memory is given back. It reads from
its standard input how many batches are at work, and ends with whoever has started it.
"""

import argparse
import logging
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ....core.errors import SlurminferError
from ....core.processes.process import accept_any_text
from ....core.rundir import RunDirectory
from .work import Work

ENDED, TRY_AGAIN = 0, 75
OOM_SCORE = Path("/proc/self/oom_score_adj")


class _Share:
    """The part of the endpoint that the batch has: one of so many."""

    def __init__(self) -> None:
        self.part = 1.0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.part = 1.0 / max(1, int(line))


def be_killed_first() -> None:
    """Let the kernel end this process, and not the router, where the memory of their job is used up.

    The batch is then tried again.
    """
    with suppress(OSError):
        OOM_SCORE.write_text("1000", encoding="ascii")


def main() -> int:
    """ENDED, or TRY_AGAIN with the reason on standard output."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.jobs.batch.openai.child", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    parser.add_argument("id", help="of the batch")
    parser.add_argument("step", choices=("validate", "do", "fail"))
    parser.add_argument("--reason", default="", help="why it fails")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    be_killed_first()
    told, share = threading.Event(), _Share()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    try:
        work = Work(RunDirectory(arguments.run_directory), arguments.id, told, lambda: share.part)
        if arguments.step == "validate":
            work.validate()
        elif arguments.step == "do":
            work.do()
        else:
            work.fail(arguments.reason)
    except SlurminferError as error:
        print(error)
        return TRY_AGAIN
    return ENDED


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
