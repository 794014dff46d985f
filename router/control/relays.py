"""The relays as the supervisor sees them: started, told what there is, watched, and started again when they end."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ...core.background.rounds import Rounds
from .backoff import Backoff
from .board import Board
from .channel import Channel, ChannelError, supervisor_end
from .messages import Drain, FromRelay, Report, Setup, State

TICK_S = 1.0
# Ticks without a report. They are the supervisor's own, so that a time in which it was stopped itself does not count.
MOST_SILENT_TICKS = 15
_MOST_STARTING_TICKS = 120  # before the first report: the program may have to be read from a slow filesystem
_ENDING_S = 2.0  # for a relay to end after its channel has
_DRAINED_GRACE_S = 5.0  # for a relay to end, beyond what it has for its requests

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What a relay gets: sockets that the supervisor keeps open too, but for its end of the channel, and the board."""

    index: int
    channel: socket.socket
    listener: socket.socket
    private_listener: socket.socket
    board: Board


class Life(Protocol):
    """A relay that has been started."""

    def kill(self) -> None:
        """End it at once, if it has not ended."""

    async def ended(self) -> str:
        """Wait for its end; how it came, such as "was killed by SIGKILL"."""


Starter = Callable[[Ends], Life]  # raises OSError


class Listener(Protocol):
    """Who is told what relays do."""

    def heard(self, relay: int, message: FromRelay) -> None:
        """A message of a relay."""

    def ended(self, relay: int) -> None:
        """A relay has ended; another one of its index follows, which counts from nothing."""


class Relays:
    """All relays of a router. `listeners` and `private_listeners` are theirs and the supervisor's, one for each."""

    def __init__(
        self,
        setups: Sequence[Setup],
        board: Board,
        listeners: Sequence[socket.socket],
        private_listeners: Sequence[socket.socket],
        start: Starter,
        owner: Listener,
        rounds: Rounds | None = None,
    ) -> None:
        self._sockets, self._rounds = (*listeners, *private_listeners), rounds or Rounds()
        ends = zip(setups, listeners, private_listeners, strict=True)
        self._keepers = [_Keeper(*of_one, board, start, owner) for of_one in ends]

    def tell(self, message: State) -> None:
        """Tell all relays, and those that are started later."""
        for keeper in self._keepers:
            keeper.tell(message)

    def tick(self) -> None:
        """Kill relays that have been silent for too long. Called once a second."""
        for keeper in self._keepers:
            keeper.tick()

    @property
    def pids(self) -> list[int | None]:
        """The process id of each relay; None where there is no process at the moment."""
        return [keeper.pid for keeper in self._keepers]

    @property
    def are_serving(self) -> bool:
        """Whether every relay has reported since it was started last."""
        return all(keeper.is_serving for keeper in self._keepers)

    async def run(self) -> None:
        """Keep them running until cancelled; then they are killed."""
        keeping = [asyncio.create_task(self._rounds.repeat("relay", keeper.run)) for keeper in self._keepers]
        try:
            while True:
                await asyncio.sleep(TICK_S)
                with self._rounds.guarded("relays"):
                    self.tick()
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def drain(self, seconds: float) -> None:
        """Accept no more; wait until what is in flight is finished, for up to `seconds`. `run` goes on meanwhile."""
        for keeper in self._keepers:
            keeper.drain(seconds)
        for sock in self._sockets:
            sock.close()
        gone = asyncio.gather(*(keeper.gone.wait() for keeper in self._keepers))
        with suppress(TimeoutError):
            await asyncio.wait_for(gone, seconds + _DRAINED_GRACE_S)


class _Keeper:
    """Keeps one relay running."""

    def __init__(
        self,
        setup: Setup,
        listener: socket.socket,
        private_listener: socket.socket,
        board: Board,
        start: Starter,
        owner: Listener,
    ) -> None:
        self._setup, self._listener, self._private_listener = setup, listener, private_listener
        self._board, self._start, self._owner = board, start, owner
        self._index = setup.index
        self._told: dict[type, State] = {}
        self._channel: Channel[FromRelay] | None = None
        self._life: Life | None = None
        self._silent_ticks, self._reported, self._draining = 0, False, False
        self._wake = asyncio.Event()  # ends a wait before the next start
        self.gone = asyncio.Event()  # no relay, and there will be none unless `run` is called
        self.gone.set()

    @property
    def pid(self) -> int | None:
        return getattr(self._life, "pid", None)

    def tell(self, message: State) -> None:
        self._told[type(message)] = message
        if self._channel is not None:
            self._channel.send(message)

    def tick(self) -> None:
        self._silent_ticks += 1
        most = MOST_SILENT_TICKS if self._reported else _MOST_STARTING_TICKS
        if self._silent_ticks > most and self._life is not None:
            _log.warning("relay %d has been silent for %d s; it is killed", self._index, self._silent_ticks - 1)
            self._silent_ticks = 0
            self._life.kill()

    @property
    def is_serving(self) -> bool:
        return self._channel is not None and self._reported

    def drain(self, seconds: float) -> None:
        self._draining = True
        self._wake.set()
        if self._channel is not None:
            self._channel.send(Drain(seconds))

    async def run(self) -> None:
        backoff, now = Backoff(), asyncio.get_running_loop().time
        self.gone.clear()
        try:
            while not self._draining:
                began = now()
                how = await self._live()
                if not self._draining:
                    wait_s = backoff.after(now() - began)
                    _log.warning("relay %d %s; the next one starts in %.1f s", self._index, how, wait_s)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), wait_s)
        finally:
            self.gone.set()

    async def _live(self) -> str:
        """Start a relay and wait for its end; how it came."""
        ours, theirs = socket.socketpair()
        over: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        ends = Ends(
            index=self._index, channel=theirs, listener=self._listener, private_listener=self._private_listener,
            board=self._board,
        )  # fmt: skip
        try:
            with theirs:
                life = self._life = self._start(ends)
        except OSError as error:
            ours.close()
            return f"cannot be started: {error.strerror}"
        self._silent_ticks, self._reported = 0, False
        try:
            self._channel = await supervisor_end(ours, self._hear, lambda error: _settle(over, error))
            for message in (self._setup, *self._told.values()):
                self._channel.send(message)
            fault = await over  # a relay that ends closes it, however it ends
            if isinstance(fault, ChannelError):
                return f"said what is no message ({fault})"
            with suppress(TimeoutError):  # it closes the channel before it has said why it ends
                await asyncio.wait_for(life.ended(), _ENDING_S)
        finally:
            if self._channel is not None:
                self._channel.abort()
            self._channel = None
            life.kill()
            how = await life.ended()
            self._life = None
            self._board.clear(self._index)
            self._owner.ended(self._index)
        return how

    def _hear(self, message: FromRelay) -> None:
        self._silent_ticks = 0
        self._reported = self._reported or isinstance(message, Report)
        self._owner.heard(self._index, message)


def _settle(future: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not future.done():  # nobody waits any more where the supervisor itself ends
        future.set_result(error)
