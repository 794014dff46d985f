"""Threads in which constraints are compiled.

The library follows references and rules by calling itself, and what overflows a thread's stack ends the process. A
level takes up to 8 KB, and the longest constraint that is taken has some 15,000 of them.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

STACK_BYTES = 1 << 28  # of addresses; memory is what is used of them

_NICENESS = 10

_Result = TypeVar("_Result")
_starting = threading.Lock()


class DeepThreads:
    """A pool of threads with large stacks."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, name, initializer=yield_to_others)

    def submit(self, work: Callable[..., _Result], *args: Any) -> "Future[_Result]":
        """Let a thread do some work; those that have come before go first."""
        with _starting:  # the size is that of all threads that are started now
            usual = threading.stack_size(STACK_BYTES)
            try:
                return self._pool.submit(work, *args)
            finally:
                threading.stack_size(usual)

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def yield_to_others() -> None:
    """Let the calling thread run when others do not need its CPU: the model's threads all wait for the slowest.

    Only Linux has priorities of threads.
    """
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
