"""What ends an engine's processes where the agent cannot: it was killed, or they are in sessions of their own."""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

import psutil

_PATIENCE_S = 5.0
# Slurm sends the walltime's and other signals to every process of a task. What is in the group's session but in another
# group serves the filesystem of a container's image (FUSE). In /proc, after the name: state, parent, group, session.
_SCRIPT = """
trap "" HUP INT TERM USR1 USR2
read -r group || exit 0
read -r end
kill -s KILL -- "-$group"
for file in /proc/[0-9]*/stat; do
    read -r line <"$file" || continue
    set -- ${line##*) }
    [ "$4" = "$group" ] || continue
    pid=${file#/proc/}
    kill -s KILL "${pid%/stat}"
done
"""


class Guard:
    """A process that kills a process group, and its session, as soon as this process has ended, in whatever way.

    The kernel ends an engine's first process with its agent (`die_with_parent`), but not what that process has started.
    """

    def __init__(self) -> None:
        """Start it; raises OSError."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # processes that end meanwhile
            start_new_session=True,
            bufsize=0,
        )

    def watch(self, group: int) -> None:
        """Say which group. It is the first one of a session of its own."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody has killed it
            self._process.stdin.write(b"%d\n" % group)

    def dismiss(self) -> None:
        """End it; the group stays as it is."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def end_orphans(patience_s: float = _PATIENCE_S, keep: Collection[int] = ()) -> None:
    """Kill the children of this process that are in other sessions than it, and theirs, but for those in `keep`.

    For the end of an agent, when its engine and gate have ended: what is left was started by an engine that has died,
    in a session of its own, so that it was not killed with the engine's group.
    """
    deadline = time.monotonic() + patience_s
    while (left := _in_other_sessions(keep)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, timeout=max(0.0, deadline - time.monotonic()))


def _in_other_sessions(keep: Collection[int]) -> list[psutil.Process]:
    own, found = os.getsid(0), []
    for process in _descendants(keep):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) != own:
                found.append(process)
    return found


def _descendants(keep: Collection[int]) -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        if child.pid not in keep:
            yield child
            with suppress(psutil.NoSuchProcess):
                yield from child.children(recursive=True)
