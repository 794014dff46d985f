"""`python launcher.py < ARGUMENTS`: sglang-router with the arguments that come as a JSON list on standard input.

One of them is the API key, which would stand in the process list otherwise. This file runs in the environment of
sglang-router, and imports nothing of slurminfer.
"""

import ctypes
import json
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Run sglang-router in this process, which ends with the one that has started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.argv[1:] = json.load(sys.stdin)
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != folder]  # what Python puts there for a script
    runpy.run_module("sglang_router.launch_router", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
