"""Drivers in threads of which one runs at a time, each up to its next step on the filesystem, in a given order.

A driver may be stopped at any step, taken for dead by the others, and wake up later, or never.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

STEPS = ("listdir", "link", "unlink", "rename", "replace", "open", "fsync")


class Killed(BaseException):
    """Raised at each further step of a driver, so that nothing more of it reaches the filesystem."""


class _Driver(threading.Thread):
    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self.is_killed = self.is_over = False
        self.raised: BaseException | None = None

    def run(self) -> None:
        try:
            self.pause()
            self._act()
        except Killed:
            pass
        except BaseException as error:
            self.raised = error
        self.is_over = True
        self._paused.release()

    def pause(self) -> None:
        """Before a step, in the thread: wait until it is this driver's turn."""
        if not self.is_killed:
            self._paused.release()
            self._go.acquire()
        if self.is_killed:
            raise Killed

    def step(self) -> None:
        """Let it make one step."""
        self._go.release()
        self._paused.acquire()


class Interleaved:
    """Runs drivers step by step. A context manager.

    Args:
        patch: pytest's monkeypatch.
    """

    def __init__(self, patch: Any) -> None:
        self._patch = patch
        self._drivers: list[_Driver] = []

    def __enter__(self) -> "Interleaved":
        for name in STEPS:
            self._patch.setattr(os, name, self._gated(getattr(os, name)))
        return self

    def __exit__(self, *raised: object) -> None:
        for driver in self._drivers:
            driver.is_killed = True
            while not driver.is_over:
                driver.step()
            driver.join()

    def add(self, act: Callable[[], None]) -> int:
        """A further driver; its number."""
        driver = _Driver(act)
        self._drivers.append(driver)
        driver.start()
        driver._paused.acquire()
        return len(self._drivers) - 1

    def is_over(self, number: int) -> bool:
        """Whether a driver has ended."""
        return self._drivers[number].is_over

    def step(self, number: int) -> None:
        """Let a driver make its next step; raises what it has raised."""
        driver = self._drivers[number]
        if not driver.is_over:
            driver.step()
        if driver.raised is not None:
            raise driver.raised

    def pause(self) -> None:
        """A step without an effect of the driver that calls it."""
        me = threading.current_thread()
        if isinstance(me, _Driver):
            me.pause()

    def _gated(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **kwargs: Any) -> Any:
            self.pause()
            return call(*args, **kwargs)

        return gated
