"""What the router's job runs, as processes that are started again: the router, the controller of the fleet, and the
program that does the batches of OpenAI's API.

This process only looks after them. So when the router is killed, the endpoint is back within seconds, at the same
port.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ...core import files
from ...core.errors import RouterError, RunDirectoryError
from ...core.processes.ending import end_child
from ...core.processes.process import describe_exit, die_with_parent
from ...core.processes.python import module_argv
from ...core.records import ROUTER
from ...core.rundir import RunDirectory
from ...core.slurm_env import WALLTIME_SIGNAL, as_own_job
from ...core.trust import PRIVATE_FILE
from ...router.exits import COULD_NOT_SERVE, REPLACED, REQUEUE, STOPPED
from ..fleet.exits import DEPLOYMENT_STOPPED

CONTROLLER_LOG, BATCHES_LOG = "controller.log", "batches.log"  # in the router's folder of logs
# A process that ends is started again after a pause, which doubles up to the longest one while it ends soon.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _SOON_S = 0.5, 60.0, 60.0
_LOOK_EVERY_S = 0.2
_CONTROLLER_ENDS_S, _BATCHES_END_S = 4.0, 2.0
# After one of these the job ends, whoever serves. At its walltime limit the router may serve on for a while.
_ENDING = {signal.SIGTERM, signal.SIGINT}

_log = logging.getLogger(__name__)


class _Kept:
    """One of these processes."""

    def __init__(self, name: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self.name, self._start = name, start
        self.process: subprocess.Popen[bytes] | None = None
        self._started_at, self._pause_s, self._next_at = 0.0, _FIRST_PAUSE_S, 0.0
        self.is_wanted = True

    def look(self) -> int | None:
        """Start it if it is due; its exit status, once when it has ended."""
        now = time.monotonic()
        if self.process is None:
            if self.is_wanted and now >= self._next_at:
                self._try_start(now)
            return None
        code = self.process.poll()
        if code is not None:
            self.process = None
            self._pause_s = _FIRST_PAUSE_S if now - self._started_at > _SOON_S else self._pause_s
            self._next_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return code

    def tell(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def end(self, patience_s: float) -> None:
        """Let it end, at last by force."""
        self.is_wanted = False
        if self.process is None:
            return
        end_child(self.process, patience_s)
        self.process = None

    def _try_start(self, now: float) -> None:
        self._started_at, self._next_at = now, now + self._pause_s
        try:
            self.process = self._start()
        except (RunDirectoryError, OSError) as error:
            _log.warning("the %s cannot be started: %s", self.name, error)


def run_router_job(run: RunDirectory, is_taken_away: Callable[[], bool] = bool) -> None:
    """Serve until told to stop, with a controller and the program for batches beside. For the main thread of a process.

    A handler of SIGUSR2, which requeues the job under submitit, is called last: where that signal came alone and no
    other router has taken over, or where `is_taken_away` says that the scheduler ends the job of its own accord.
    Raises RouterError where the router cannot serve.
    """
    requeue = signal.getsignal(WALLTIME_SIGNAL)
    router = _Kept("router", lambda: _start(module_argv("slurminfer.router", str(run.path)), None))
    controller = _Kept("controller", lambda: _start_beside(run, "slurminfer.jobs.fleet", CONTROLLER_LOG))
    batches = _Kept("program for batches", lambda: _start_beside(run, "slurminfer.jobs.batch.openai", BATCHES_LOG))
    try:
        with _passing_on(router) as came:
            code = _keep(router, controller, batches, came)
    finally:
        batches.end(_BATCHES_END_S)
        controller.end(_CONTROLLER_ENDS_S)
        router.end(_CONTROLLER_ENDS_S)
    if code == COULD_NOT_SERVE:
        raise RouterError(_why_not(run))
    if callable(requeue) and (code == REQUEUE or (came and code == STOPPED and is_taken_away())):
        requeue(WALLTIME_SIGNAL, None)


def _keep(router: _Kept, controller: _Kept, batches: _Kept, came: Sequence[int]) -> int:
    """Look after all until the router has ended for good; its exit status."""
    while True:
        ended = controller.look()
        if ended == DEPLOYMENT_STOPPED or _ENDING.intersection(came):
            controller.is_wanted = False
        elif ended is not None:
            _log.warning("the controller %s; it is started again", describe_exit(ended))
        batches.is_wanted = not _ENDING.intersection(came)
        if (ended := batches.look()) is not None and batches.is_wanted:
            _log.warning("the program for batches %s; it is started again", describe_exit(ended))
        code = router.look()
        if code is not None:
            if came or code in (STOPPED, REPLACED, REQUEUE, COULD_NOT_SERVE):
                return code
            _log.warning("the router %s; it is started again", describe_exit(code))
        elif came and router.process is None:
            return STOPPED
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _passing_on(router: _Kept) -> Iterator[list[int]]:
    """Signals that ask for an end, in order; the router gets them too."""
    came: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        router.tell(number)

    numbers = (*_ENDING, WALLTIME_SIGNAL)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _why_not(run: RunDirectory) -> str:
    with suppress(RunDirectoryError):
        record = run.read_router()
        if record is not None and record.reason:
            return record.reason
    return "the router could not serve; the lines above say why"


def _start_beside(run: RunDirectory, module: str, log_name: str) -> "subprocess.Popen[bytes]":
    folder = run.logs_of(ROUTER)
    files.make_directory(folder)
    with open(folder / log_name, "ab", opener=_private) as log:
        return _start(module_argv(module, str(run.path)), log.fileno())


def _start(argv: Sequence[str], output: int | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env={**os.environ, **as_own_job()},
        preexec_fn=die_with_parent,
    )


def _private(path: str | Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, PRIVATE_FILE)
