"""A real router before a stub engine, and a manager whose batches are worked on in threads of this process."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from slurminfer.core.errors import SlurminferError
from slurminfer.jobs.batch.openai.manager import Manager
from slurminfer.jobs.batch.openai.work import Work
from slurminfer.router.batches.store import BatchStore

from ....router.conftest import Deployment, empty, eventually, loop  # noqa: F401
from ....support import waiting

CHAT = "/v1/chat/completions"


class ThreadChild:
    """A batch that is worked on in a thread."""

    def __init__(self, work: Work, told: threading.Event, step: str, reason: str) -> None:
        self._work, self._told, self._step, self._reason = work, told, step, reason
        self._code: int | None = None
        self._said = ""
        self.shares: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            {"validate": self._work.validate, "do": self._work.do, "fail": lambda: self._work.fail(self._reason)}[
                self._step
            ]()
            self._code = 0
        except SlurminferError as error:
            self._said, self._code = str(error), 75
        except Exception as error:
            self._said, self._code = repr(error), 1

    def poll(self) -> int | None:
        return self._code

    def last_words(self) -> str:
        return self._said

    def share_with(self, count: int) -> None:
        self.shares.append(count)

    def stop(self) -> None:
        self._told.set()

    def kill(self) -> None:
        self._told.set()
        self._thread.join()


class Service:
    """A deployment with a router, a manager, and a client of each tenant."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.run = deployment, deployment.run
        self.stub = deployment.add("cpu-0", capacity=8)
        self.ahead_s = 0.0  # by which the clock of those that work on batches is ahead
        deployment.start_router()
        self.client: openai.OpenAI = deployment.openai
        self.store = BatchStore(self.run, self.clock)
        self.manager = Manager(self.run, self.start)
        self.steps: list[tuple[str, str]] = []

    def clock(self) -> float:
        return time.time() + self.ahead_s

    def start(self, id: str, step: str, reason: str) -> ThreadChild:
        self.steps.append((id, step))
        told = threading.Event()
        return ThreadChild(Work(self.run, id, told, clock=self.clock), told, step, reason)

    def upload(self, *lines: object, client: openai.OpenAI | None = None) -> str:
        data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        return (client or self.client).files.create(file=("rows.jsonl", data), purpose="batch").id

    def create(self, *lines: object, endpoint: Any = CHAT, client: openai.OpenAI | None = None, **fields):
        file = self.upload(*lines, client=client)
        asked = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", **fields}
        return (client or self.client).batches.create(**asked)

    def until(self, id: str, *statuses: str, client: openai.OpenAI | None = None):
        """Let the manager look until the batch has one of these states."""
        found = None

        def look() -> bool:
            nonlocal found
            self.manager.tick()
            found = (client or self.client).batches.retrieve(id)
            return found.status in statuses

        waiting.eventually(look)
        return found

    def lines(self, file_id: str) -> list[dict]:
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]

    def lines_at(self, file_id: str) -> list[dict]:
        """The same from the disk: the router's clock is not ahead."""
        return [json.loads(line) for line in self.store.files.content_path(file_id).read_text().splitlines()]


def row(id: str, content: str = "Hi", model: str = "stub-model", url: str = CHAT, **body) -> dict:
    """A line of an input."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], **body}
    return {"custom_id": id, "method": "POST", "url": url, "body": body}


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")


@pytest.fixture
def service(empty: Deployment) -> Iterator[Service]:  # noqa: F811
    service = Service(empty)
    yield service
    service.manager.close()
