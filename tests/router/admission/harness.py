"""An admission with a board and a clock of the test's own, and requests that do what the test says."""

import asyncio
from collections import Counter

from slurminfer.router.admission.admission import Admission
from slurminfer.router.admission.ticket import Place, Ticket
from slurminfer.router.tenants.refusal import Refused
from slurminfer.router.tenants.tenant import Priority


class Timer:
    """A timer that fires when the test moves the clock."""

    def __init__(self, at, callback):
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self):
        self.cancelled = True


class Queues:
    """What two relays tell each other of their queues."""

    def __init__(self):
        self.told: dict[int, list[int]] = {}

    def of(self, index):
        return _Side(self.told, index)


class _Side:
    def __init__(self, told, index):
        self._told, self._index = told, index

    def publish(self, lane, waiting):
        self._told[self._index] = list(waiting)

    def waiting(self, lane):
        told = self._told.get(1 - self._index)
        return told if told and any(told) else None


class World:
    """One relay. `slots` and `elsewhere` are by lane; what this relay has on the board is counted by `Request`."""

    def __init__(self, slots=1, *, queue=100, timeout_s=600.0, reserved=0.0, neighbours=None):
        self.now = 0.0
        self.timers: list[Timer] = []
        self.slots: Counter[str] = Counter({"m": slots})
        self.elsewhere: Counter[str] = Counter()
        self.board: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.admission = Admission(
            self.room,
            queue=queue,
            timeout_s=timeout_s,
            reserved=reserved,
            clock=lambda: self.now,
            call_later=self.call_later,
            neighbours=neighbours,
        )
        self.requests: list[Request] = []

    def room(self, lane):
        return self.slots[lane], self.board[lane] + self.elsewhere[lane]

    def call_later(self, delay_s, callback):
        timer = Timer(self.now + delay_s, callback)
        self.timers.append(timer)
        return timer

    def entering(self, request):
        """Called when a request goes to a worker, before it is on the board."""

    async def advance(self, seconds):
        """Let time pass, then let everybody run."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now + 1e-9]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.callback()
        await settle()

    async def start(self, tenant="a", priority=Priority.DEFAULT, *, lane="m", cost=1.0, weight=1.0):
        """A request that comes now."""
        request = Request(self, tenant, priority, lane, cost, weight)
        self.requests.append(request)
        request.task = asyncio.get_running_loop().create_task(request.run())
        await settle()
        return request


class Request:
    """A request: enters, stays on the board until `finish`, leaves."""

    task: "asyncio.Task[None]"

    def __init__(self, world, tenant, priority, lane, cost, weight):
        self.world, self.lane = world, lane
        self.ticket = Ticket(tenant, lane, priority, cost, weight, self.give_way)
        self.entered, self.refused, self.preempted = 0, None, 0
        self.on_board = False
        self.wake = asyncio.Event()
        self.done = False

    @property
    def inside(self):
        return self.on_board

    @property
    def waits(self):
        return self.ticket.place is Place.WAITING

    def give_way(self):
        self.preempted += 1
        self._off()
        self.wake.set()

    async def run(self):
        admission = self.world.admission
        try:
            while not self.done:
                if self.entered or not admission.try_enter(self.ticket):
                    await admission.enter(self.ticket)
                self._on()
                await self.wake.wait()
                self.wake.clear()
        except Refused as error:
            self.refused = error
        finally:
            self._off()
            admission.leave(self.ticket)

    async def finish(self):
        """The answer is complete."""
        self.done = True
        self.wake.set()
        await settle()

    async def cancel(self):
        """The client hangs up."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await settle()

    def _on(self):
        self.world.entering(self)
        self.entered += 1
        self.on_board = True
        self.world.board[self.lane] += 1
        self.world.most[self.lane] = max(self.world.most[self.lane], self.world.board[self.lane])

    def _off(self):
        if self.on_board:
            self.on_board = False
            self.world.board[self.lane] -= 1


async def settle():
    """Let every task go on until all of them wait."""
    for _ in range(6):
        await asyncio.sleep(0)
