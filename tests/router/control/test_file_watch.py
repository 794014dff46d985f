"""What the supervisor follows: what cannot be read changes nothing, and is complained about once."""

import asyncio
from contextlib import suppress

from slurminfer.core.errors import RouterError
from slurminfer.router.control.file_watch import FileWatch


def test_what_cannot_be_read_changes_nothing_and_is_told_once(caplog):
    taken: list[str] = []
    answers: list[str | RouterError] = [
        "first",
        RouterError("half"),
        RouterError("half"),
        "second",
        RouterError("half"),
    ]

    def read() -> str:
        answer = answers.pop(0)
        if isinstance(answer, RouterError):
            raise answer
        return answer

    async def five_looks() -> None:
        watch = FileWatch("the certificate", read, taken.append)
        for _ in range(5):
            await watch.look()

    asyncio.run(five_looks())
    assert taken == ["first", "second"]
    assert [record.message for record in caplog.records] == ["the certificate stays as it was: half"] * 2


def test_it_goes_on_until_it_is_cancelled():
    taken: list[int] = []

    async def until_three() -> None:
        done = asyncio.Event()

        def take(number: int) -> None:
            taken.append(number)
            if number == 3:
                done.set()

        numbers = iter(range(1, 1000))
        watching = asyncio.create_task(FileWatch("numbers", lambda: next(numbers), take, period_s=0).watch())
        await done.wait()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    asyncio.run(until_three())
    assert taken[:3] == [1, 2, 3]
