"""Clients that ask a deployment greedily all the time, and what becomes of their requests."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..router.client import Answer, Connection
from ..router.native import ask, undisturbed
from ..router.targets import Target
from ..router.verdict import Expected, Verdict, judge

QUESTIONS = 12
# A client whose connection the router's process has taken down with it asks again, for up to five minutes.
_ASKS, _ASKS_AGAIN_S = 300, 1.0


def questions(model: str, tokens: int) -> list[dict[str, Any]]:
    """Greedy requests of both kinds, with answers of up to so many tokens; most are streams."""
    found = []
    for number in range(QUESTIONS):
        asked = f"Question {number}: " + "what is it? " * (1 + number % 4)
        fields: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": tokens - 40 * (number % 5)}
        fields |= {"prompt": asked} if number % 2 else {"messages": [{"role": "user", "content": asked}]}
        found.append(fields | ({} if number % 6 == 5 else {"stream": True, "stream_options": {"include_usage": True}}))
    return found


class Storm:
    """Clients in a thread of their own, from `start` until `stop`.

    Args:
        target: says where the endpoint is now, before each request; what clients know who follow the router.
        asked: the requests.
        clients: how many ask at once.
        again: whether a request is asked again whose connection broke without a word, which is then counted as such.
        rest_s: a client rests between two requests, for so many seconds at most.
    """

    def __init__(
        self,
        target: Callable[[], Target],
        asked: list[dict[str, Any]],
        clients: int = 8,
        again: bool = False,
        rest_s: float = 0.0,
    ) -> None:
        self._target, self._asked, self._clients, self._again, self._rest_s = target, asked, clients, again, rest_s
        self.counts, self.reasons = Counter[str](), Counter[str]()
        self._ended = threading.Event()
        self._expected = asyncio.run(undisturbed(target(), asked))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """Let the clients ask."""
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Let them end what they have begun; how many answers were right, wrong, lost and so on."""
        self._ended.set()
        self._thread.join()
        return {
            str(verdict): self.counts[verdict] for verdict in Verdict if self._again or verdict is not Verdict.RESENT
        }

    @property
    def answers(self) -> int:
        """How many there are so far."""
        return self.counts.total()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        rng = random.Random(number)
        connection: Connection | None = None
        before: Target | None = None
        while not self._ended.is_set():
            at = rng.randrange(len(self._asked))
            for _ in range(_ASKS):
                target = self._target()
                if connection is not None and target != before:
                    connection.close()
                    connection = None
                before = target
                connection, answer = await ask(connection, target, self._asked[at])
                if not (self._again and _has_broken(answer)):
                    break
                self.counts[Verdict.RESENT] += 1
                await asyncio.sleep(_ASKS_AGAIN_S)
            self._note(answer, self._expected[at], "stream" in self._asked[at])
            if self._rest_s:
                await asyncio.sleep(rng.uniform(0, self._rest_s))
        if connection is not None:
            connection.close()

    def _note(self, answer: Answer, expected: Expected, is_stream: bool) -> None:
        verdict, reason = judge(answer, expected, is_stream)
        self.counts[verdict] += 1
        if verdict is not Verdict.RIGHT:
            self.reasons[f"{verdict}: {reason[:300]}"] += 1


def _has_broken(answer: Answer) -> bool:
    """Whether the connection has ended without a word, or could not be made."""
    return answer.status == 0 or not answer.complete
