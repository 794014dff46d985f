"""Waiting for what other processes and threads do. Deadlines only end a test that would hang; they measure nothing."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

Seen = TypeVar("Seen")
_LONGEST_PAUSE_S = 3.0


def eventually(look: Callable[[], Seen], what: str = "", timeout_s: float = 60.0) -> Seen:
    """What `look` returns, once that is true. Fails after `timeout_s` seconds, and says `what` did not happen.

    The pauses are as long as three looks: a command takes half a second of a CPU, which what is waited for may want.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    began = time.monotonic()
    while not (seen := look()):
        now = time.monotonic()
        assert now < deadline, f"not within {timeout_s:g} s: {what or 'what the test waits for'}"
        time.sleep(max(pause_s, min(3 * (now - began), _LONGEST_PAUSE_S)))
        pause_s = min(2 * pause_s, 0.1)
        began = time.monotonic()
    return seen


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for its parent to read its exit status."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_idle(pid: int) -> None:
    """Until a process has used no CPU time for 0.4 s."""
    used = cpu_seconds(pid)
    calm = 0
    while calm < 20:
        time.sleep(0.02)
        now = cpu_seconds(pid)
        calm, used = (calm + 1 if now == used else 0), now


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in itself and in the kernel."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
