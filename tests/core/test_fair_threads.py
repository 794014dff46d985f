"""Work of several: so much at once, and whoever asks for it by turns."""

import asyncio
import threading
from functools import partial

import pytest

from slurminfer.core.background.fair_threads import FairThreads


class Work:
    """Work of which each piece waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lets = threading.Semaphore(0)

    def piece(self, name: str) -> str:
        self.begun.append(name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._lets.acquire()
        self.at_once -= 1
        if name.startswith("bad"):
            raise ValueError(name)
        return f"{name} done"

    def let(self, count: int) -> None:
        self._lets.release(count)


async def _asked(threads: FairThreads, work: Work, *names: str) -> list["asyncio.Task[str]"]:
    """Pieces of work, asked for in this order; a name begins with that of its tenant."""
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(threads.run(name.split()[0], partial(work.piece, name))))
        await asyncio.sleep(0)
    return tasks


def test_one_at_a_time_and_the_tenants_by_turns() -> None:
    async def run() -> None:
        threads, work = FairThreads(), Work()
        names = ("alice 1", "alice 2", "alice 3", "bob 1", "carol 1", "bob 2")
        tasks = await _asked(threads, work, *names)
        work.let(6)
        assert await asyncio.gather(*tasks) == [f"{name} done" for name in names]
        assert work.begun == ["alice 1", "alice 2", "bob 1", "carol 1", "alice 3", "bob 2"]
        assert work.most_at_once == 1

    asyncio.run(run())


def test_what_fails_or_is_not_wanted_any_more_holds_up_nothing() -> None:
    async def run() -> None:
        threads, work = FairThreads(), Work()
        tasks = await _asked(threads, work, "a 1", "bad 1", "a 2", "b 1")
        tasks[0].cancel()  # it has begun
        tasks[2].cancel()  # and this has not
        work.let(3)
        assert await tasks[3] == "b 1 done"
        with pytest.raises(ValueError, match="bad 1"):
            await tasks[1]
        assert work.begun == ["a 1", "bad 1", "b 1"]
        (again,) = await _asked(threads, work, "a 3")
        work.let(1)
        assert await again == "a 3 done"

    asyncio.run(run())
