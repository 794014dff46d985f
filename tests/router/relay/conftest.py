"""A relay before stub workers."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurminfer.router.relay import outcome, server
from slurminfer.router.relay.workers import upstream

from ...support import waiting
from ...support.loop import Loop
from .relayed import Relayed


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are tried alone wait for a moment only, and so does what is looked at now and then."""
    monkeypatch.setattr(outcome, "PAUSE_S", 0.01)
    monkeypatch.setattr(server, "_TICK_S", 0.03)


@pytest.fixture
def short_suspicion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspect is trusted again, and so nobody waited for, after a moment."""
    monkeypatch.setattr(upstream, "_FIRST_SUSPICION_S", 0.05)


@pytest.fixture
def relayed(loop: Loop) -> Iterator[Callable[..., Relayed]]:
    """Makes relays with these keys of [router]."""
    made: list[Relayed] = []
    # Threads that nobody waits for may still remove old responses from it.
    with tempfile.TemporaryDirectory(prefix="slurminfer-", ignore_cleanup_errors=True) as folder:

        def make(**router: Any) -> Relayed:
            made.append(Relayed(loop, Path(folder), **router))
            return made[-1]

        yield make
        for relay in made:
            relay.close()


@pytest.fixture
def relay(relayed: Callable[..., Relayed]) -> Relayed:
    """A relay without workers."""
    return relayed()


@pytest.fixture
def one(relay: Relayed) -> Relayed:
    """A relay before one worker."""
    relay.add("w-0")
    return relay


@pytest.fixture
def two(relay: Relayed) -> Relayed:
    """A relay before two workers."""
    relay.add("w-0")
    relay.add("w-1")
    return relay


@pytest.fixture
def eventually() -> Callable[..., None]:
    return waiting.eventually
