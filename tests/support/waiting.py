"""Waiting for what other processes and threads do. Deadlines only end a test that would hang; they measure nothing."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

Seen = TypeVar("Seen")


def eventually(look: Callable[[], Seen], what: str = "", timeout_s: float = 60.0) -> Seen:
    """What `look` returns, once that is true. Fails after `timeout_s` seconds, and says `what` did not happen."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what or 'what the test waits for'}"
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)
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
