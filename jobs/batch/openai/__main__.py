"""`python -m slurminfer.jobs.batch.openai RUN_DIRECTORY`: does the batches of OpenAI's API, beside the router."""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ....core.errors import SlurminferError
from ....core.processes.process import accept_any_text, die_with_parent
from ....core.processes.python import module_argv
from ....core.rundir import RunDirectory
from ....core.slurm_env import WALLTIME_SIGNAL
from .manager import IDLE_S, Child, ChildProcess, Manager

_log = logging.getLogger(__name__)


def main() -> int:
    """0 when it was told to end."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.jobs.batch.openai", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopped = threading.Event()
    signal.signal(WALLTIME_SIGNAL, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run = RunDirectory(arguments.run_directory)
    _look_until(stopped, Manager(run, lambda id, step, reason: _start(run, id, step, reason)))
    return 0


def _look_until(stopped: threading.Event, manager: Manager) -> None:
    complaint, pause_s = "", IDLE_S
    while not stopped.is_set():
        try:
            pause_s = manager.tick()
            complaint = ""
        except SlurminferError as error:
            if str(error) != complaint:
                _log.warning("batches wait until this ends: %s", error)
            complaint = str(error)
        stopped.wait(pause_s)
    try:
        manager.close()
    except SlurminferError as error:
        _log.warning("the next manager has to wait for a minute: %s", error)


def _start(run: RunDirectory, id: str, step: str, reason: str) -> Child:
    argv = module_argv("slurminfer.jobs.batch.openai.child", str(run.path), id, step, f"--reason={reason[:2000]}")
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, preexec_fn=die_with_parent
    )
    return ChildProcess(process)


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
