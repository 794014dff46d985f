"""`python -m slurminfer.jobs.fleet RUN_DIRECTORY`: the controller as a process of its own."""

import argparse
import logging
import signal
import sys
import threading
from functools import partial
from pathlib import Path

from ...core.errors import RunDirectoryError, SlurminferError
from ...core.processes.process import accept_any_text
from ...core.rundir import RunDirectory
from ...core.slurm_env import WALLTIME_SIGNAL
from ..launch.launchers import launcher_named
from ..launch.local import LocalLauncher
from .allowed import Allowed
from .calendar import Calendar
from .controller import Controller
from .exits import COULD_NOT_BEGIN, DEPLOYMENT_STOPPED, TOLD_TO_END
from .forecasts import TIMEOUT_S, Forecaster
from .lease import Lease
from .schedule import Schedule

# Between two looks. Slurm's controller serves a whole cluster, and is asked seldom.
_LOCAL_S, _SLURM_S = 2.0, 10.0
# Whoever starts a standby has seen for a minute that nobody renews the lease.
_STANDBY_STALE_S = 15.0

_log = logging.getLogger(__name__)


def main() -> int:
    """Its exit status, one of exits.py."""
    parser = argparse.ArgumentParser(prog="python -m slurminfer.jobs.fleet", description=__doc__)
    parser.add_argument("run_directory", type=Path, help="the deployment's run directory")
    parser.add_argument(
        "--standby", action="store_true", help="end as soon as a router serves, beside which another runs"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopped = threading.Event()
    signal.signal(WALLTIME_SIGNAL, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        return _run(RunDirectory(arguments.run_directory), stopped, arguments.standby)
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return COULD_NOT_BEGIN


def _run(run: RunDirectory, stopped: threading.Event, is_standby: bool) -> int:
    deployment = run.read_deployment()
    if deployment is None:
        return DEPLOYMENT_STOPPED
    lease = Lease(run, stale_s=_STANDBY_STALE_S) if is_standby else Lease(run)
    controller = _controller(run, deployment.launcher, lease)
    tick_s, complaint = _LOCAL_S if deployment.launcher == LocalLauncher.name else _SLURM_S, ""
    while not stopped.is_set():
        try:
            if not controller.tick():
                return DEPLOYMENT_STOPPED
            if is_standby and controller.has_router:
                break
            complaint = ""
        except SlurminferError as error:
            if str(error) != complaint:
                _log.warning("the fleet stays as it is until this ends: %s", error)
            complaint = str(error)
        stopped.wait(tick_s)
    try:
        controller.close()
    except RunDirectoryError as error:
        _log.warning("the next controller has to wait for a minute: %s", error)
    return TOLD_TO_END


def _controller(run: RunDirectory, launcher: str, lease: Lease) -> Controller:
    """The controller of the deployment's jobs; only Slurm has reservations and forecasts. Raises as launcher_named."""
    if launcher != "slurm":
        return Controller(run, launcher_named(launcher), lease=lease)
    from ...slurm.submit import SlurmLauncher

    slurm = SlurmLauncher()
    forecaster = Forecaster(run, partial(slurm.forecast, timeout_s=TIMEOUT_S))
    return Controller(run, slurm, Schedule(Allowed(), Calendar(), forecaster), lease=lease)


if __name__ == "__main__":
    accept_any_text()
    sys.exit(main())
