"""`slurminfer tunnel` as a program, and what it says."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import httpx

from .waiting import eventually

HOUSE = Path(__file__).parents[2]
SLURMINFER = [sys.executable, "-m", "slurminfer"]


class Tunnel:
    """The program at a terminal, whose output is read as it comes."""

    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*SLURMINFER, "tunnel", *words],
            env={**os.environ, **env}, cwd=HOUSE, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip
        self.out: list[str] = []
        self.err: list[str] = []
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [
            threading.Thread(target=_collect, args=(self.process.stdout, self.out)),
            threading.Thread(target=_collect, args=(self.process.stderr, self.err)),
        ]
        for reader in self._readers:
            reader.start()

    def says(self, pattern: str) -> str:
        """The first line of either output that has the pattern, once it is there."""

        def look() -> str:
            assert self.process.poll() is None, "".join(self.err)
            return next((line for line in [*self.out, *self.err] if re.search(pattern, line)), "")

        return eventually(look, pattern).rstrip("\n")

    @property
    def url(self) -> str:
        return self.says("OPENAI_BASE_URL=").partition("=")[2]

    @property
    def key(self) -> str:
        command = f'{self.says("OPENAI_API_KEY=")}; echo "$OPENAI_API_KEY"'
        return subprocess.run(["sh", "-c", command], capture_output=True, encoding="utf-8").stdout.strip()

    def who(self) -> str:
        return httpx.get(f"{self.url}/who", timeout=60, trust_env=False).raise_for_status().text

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended and all that it said is there."""
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        return code


def _collect(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


class Asking:
    """A client that keeps asking for a page, over a new connection each time."""

    def __init__(self, url: str) -> None:
        self.answers: list[str] = []
        self._url, self._over = url, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(httpx.get(self._url, timeout=150, trust_env=False).text)
            except httpx.HTTPError as error:
                self.answers.append(f"{type(error).__name__}: {error}")

    def end(self) -> list[str]:
        self._over.set()
        self._thread.join()
        return self.answers
