"""sglang-router as a child process."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from ...core.errors import RouterError
from ...core.net.sockets import hold_port
from ...core.processes.ending import end_child_async
from ...core.processes.process import describe_exit
from ...core.spec.router import RouterSpec
from .peers import is_own_listener

# What the spec's policies are called there.
POLICIES = {"cache_aware": "cache_aware", "round_robin": "round_robin", "power_of_two": "power_of_two"}
_LAUNCHER = Path(__file__).parent / "launcher.py"
_START_S = 60.0
_POLL_S = 0.1
_STDERR = 2  # its log becomes a part of ours
_NO_LIMIT_S = 7 * 86_400  # for which one generation may last
_MOST_BODY_BYTES = 64 * 2**20


def arguments(spec: RouterSpec, address: str, port: int, metrics_port: int, key: str) -> list[str]:
    """The command line of sglang-router 0.3.2. Pure.

    Its circuit breakers are off: twenty errors of clients (400) would open those of all workers. Which workers there
    are, the registry decides.
    """
    return [
        "--host", address, "--port", str(port), "--api-key", key, "--policy", POLICIES[spec.policy],
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port),
        "--health-check-endpoint", "/health", "--disable-circuit-breaker",
        "--queue-size", str(spec.queue), "--queue-timeout-secs", str(max(1, round(spec.queue_timeout))),
        "--request-timeout-secs", str(_NO_LIMIT_S), "--max-payload-size", str(_MOST_BODY_BYTES),
        "--request-id-headers", "x-request-id", "--log-level", "warn",
        *(["--cors-allowed-origins", *spec.allowed_origins] if spec.allowed_origins else []),
    ]  # fmt: skip


class RustRouter:
    """One run of sglang-router."""

    def __init__(self, spec: RouterSpec, address: str, port: int, key: str) -> None:
        self._spec, self._address, self._port, self._key = spec, address, port, key
        self._process: Process | None = None

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://{self._address}:{self._port}"

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def is_listening(self) -> bool:
        """Whether it runs and, as far as the kernel knows, has the port."""
        return self.is_running and is_own_listener((self._address, self._port))

    async def ended(self) -> str:
        """Wait for its end; how it came."""
        assert self._process is not None, "start() comes before"
        return describe_exit(await self._process.wait())

    async def start(self) -> None:
        """Start it and wait until it accepts connections. Raises RouterError."""
        with hold_port("127.0.0.1") as held:
            metrics_port = held.getsockname()[1]
        words = arguments(self._spec, self._address, self._port, metrics_port, self._key)
        python = self._spec.python or sys.executable
        try:
            self._process = await asyncio.create_subprocess_exec(
                python, str(_LAUNCHER), stdin=PIPE, stdout=_STDERR, env=os.environ | {"NO_COLOR": "1"},
                start_new_session=True,  # signals to all processes of the router are not for it
            )  # fmt: skip
        except OSError as error:
            raise RouterError(f"router.python = {python!r} cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode())
        self._process.stdin.close()
        await self._wait_until_it_listens()

    async def stop(self, seconds: float) -> None:
        """End it: SIGTERM, which lets requests in flight end, and SIGKILL after so many seconds."""
        if self._process is not None and self.is_running:
            await end_child_async(self._process, seconds)

    async def _wait_until_it_listens(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _START_S
        while self.is_running and loop.time() < until:
            if self.is_listening:
                return
            await asyncio.sleep(_POLL_S)
        await self.stop(0)
        raise RouterError(
            f"sglang-router does not listen on {self._address}:{self._port}; "
            "its own lines in the router's log, before this one, say why"
        )
