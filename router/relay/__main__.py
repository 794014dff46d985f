"""`python -m slurminfer.router.relay CHANNEL BOARD LISTENER PRIVATE`: a relay, started by the supervisor.

The arguments are numbers of inherited file descriptors.
"""

import logging
import signal
import sys

import uvloop

from ...core.processes.process import accept_any_text
from .program import run_relay

# Slurm and terminals send these to all processes of the router; what a relay does then, the supervisor says.
_NOT_FOR_US = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> int:
    """0 after the end that the supervisor has asked for."""
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    accept_any_text()
    form = "%(asctime)s %(levelname)s relay %(process)d %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    uvloop.run(run_relay(*map(int, sys.argv[1:5])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
