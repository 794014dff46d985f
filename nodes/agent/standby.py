"""A worker's agent looks whether anybody looks after the fleet, and starts a controller where nobody does.

The controller runs in the router's job. When that job is gone, the workers are all that is left of the deployment.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ...core import files
from ...core.errors import RunDirectoryError
from ...core.processes.ending import end_child
from ...core.processes.process import die_with_parent
from ...core.records import CONTROLLER_SILENCE_S
from ...core.rundir import RunDirectory

_LOOK_EVERY_S = 10.0
_EACH_LATER_S = 5.0  # than the worker of the slot before, so that not all agents start one at the same moment
_MOST_LATER_S = 60.0
_CHILD_ENDS_S = 2.0


class Standby:
    """Called again and again; looks now and then.

    Args:
        run: of the deployment.
        argv: the command line of a controller; empty: none is started.
        slot: the worker's.
        start: starts a process from a command line.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        argv: Sequence[str],
        slot: int,
        start: "Callable[[Sequence[str]], subprocess.Popen[bytes]] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The agent's environment as it is now: later it names the GPUs of its own engine, and no other worker's.
        self._start = start or partial(_start, env=dict(os.environ))
        self._run, self._argv, self._clock = run, list(argv), clock
        self._patience_s = CONTROLLER_SILENCE_S + min(slot * _EACH_LATER_S, _MOST_LATER_S)
        self._seen: str | None = None
        self._seen_at = self._looked_at = clock()
        self._child: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Start a controller if there has been none for long."""
        now = self._clock()
        if not self._argv or now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        if self._child is not None and self._child.poll() is None:
            self._seen_at = now
            return
        try:
            seen = files.read_private(self._run.lease_path)
            is_served = self._run.deployment_path.exists()
        except (RunDirectoryError, OSError):  # nobody could renew a lease there
            self._seen_at = now
            return
        if seen != self._seen or not is_served:
            self._seen, self._seen_at = seen, now
        elif now - self._seen_at >= self._patience_s:
            self._seen_at = now
            print("nobody looks after the fleet: a controller is started here", flush=True)
            self._child = self._start(self._argv)

    def close(self) -> None:
        """End the controller that runs here."""
        if self._child is not None and self._child.poll() is None:
            end_child(self._child, _CHILD_ENDS_S)


def _start(argv: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=env, preexec_fn=die_with_parent)
