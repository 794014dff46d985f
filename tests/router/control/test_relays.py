"""Relays kept running, in this process over real socket pairs, and as processes."""

import asyncio
import os
import signal
import socket
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slurminfer.core.errors import RouterError
from slurminfer.core.net.certificates import new_key, self_signed
from slurminfer.core.net.identity import client_context, make_identity
from slurminfer.router.control.backoff import Backoff
from slurminfer.router.control.board import Board
from slurminfer.router.control.listeners import open_listeners
from slurminfer.router.control.messages import Certificates, Report, Setup, Suspect, Tenants, View
from slurminfer.router.control.processes import RelayProcess, environment
from slurminfer.router.control.relays import MOST_SILENT_TICKS, Relays
from slurminfer.router.relay.program import RelayTask

from ...support import waiting
from .servers import FakeServer

SCRIPT = (sys.executable, str(Path(__file__).with_name("relay_script.py")))


def as_process(ends):
    return RelayProcess(ends, SCRIPT)


def as_task(ends):
    return RelayTask(ends, FakeServer)


class Owner:
    """Notes what it is told, and wakes whoever waits for it."""

    def __init__(self):
        self.said, self.ends = [], []
        self._news = asyncio.Event()

    def heard(self, relay, message):
        self.said.append((relay, message))
        self._news.set()

    def ended(self, relay):
        self.ends.append(relay)
        self._news.set()

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()


class World:
    """Two relays and what they share."""

    async def start(self, starter, count=2, tls="off"):
        self.owner, self.board = Owner(), Board.create(count)
        self.sockets = await open_listeners("127.0.0.1", 0, count)
        private = self.private = await open_listeners("127.0.0.1", 0, count)
        self.address = self.sockets[0].getsockname()
        setups = [Setup(index=n, relays=count, router={"tls": tls}, pools=[], control_socket="") for n in range(count)]
        self.relays = Relays(setups, self.board, self.sockets, private, starter, self.owner)
        self.relays.tell(View([]))
        self.relays.tell(Tenants([], {}))
        self.running = asyncio.create_task(self.relays.run())
        return self

    async def ask(self):
        """(index, pid) of the relay that answers."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*self.address)
            words = (await reader.read()).split()
            writer.close()
            return int(words[0]), int(words[1])

    async def hear_both(self):
        """Wait until each relay has answered somebody."""
        found: dict[int, int] = {}
        while len(found) < 2:
            index, pid = await self.ask()
            found[index] = pid
        return found

    async def stop(self):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        for sock in (*self.sockets, *self.private):
            sock.close()
        self.board.close()


def run(main, starter):
    async def inner():
        FakeServer.made.clear()
        world = await World().start(starter)
        try:
            await main(world)
        finally:
            await world.stop()

    asyncio.run(inner())


def test_waits_double_until_a_relay_has_lived():
    backoff = Backoff()
    assert [round(backoff.after(1.0), 1) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [backoff.after(30.0), backoff.after(0.0)] == [0.1, 0.2]


def test_both_answer_on_one_port_and_their_messages_are_heard():
    async def main(world):
        await world.hear_both()
        await world.owner.until(lambda: {relay for relay, m in world.owner.said if isinstance(m, Suspect)} == {0, 1})
        assert [server.setup.index for server in FakeServer.made] == [0, 1]
        assert all(server.seen[:2] == [View([]), Tenants([], {})] for server in FakeServer.made)

    run(main, as_task)


def test_a_relay_that_fails_is_started_again_and_its_row_is_empty(monkeypatch, caplog):
    monkeypatch.setattr(Backoff, "after", lambda self, lived: 0.0)

    async def main(world):
        await world.hear_both()
        assert world.board.in_flight(0) >= 2
        first, second = FakeServer.made
        first.fails = True
        world.relays.tell(View([]))
        await world.owner.until(lambda: world.owner.ends == [0])
        assert first.is_closed and not second.is_closed
        await world.hear_both()
        assert len(FakeServer.made) == 3 and FakeServer.made[2].setup.index == 0
        world.board.row(0).add(7, requests=2)
        FakeServer.made[2].fails = True
        world.relays.tell(View([]))
        await world.owner.until(lambda: world.owner.ends == [0, 0])
        assert world.board.in_flight(7) == 0

    run(main, as_task)


def test_a_relay_is_started_again_although_its_end_could_not_be_noted(monkeypatch, caplog):
    monkeypatch.setattr(Backoff, "after", lambda self, lived: 0.0)
    monkeypatch.setattr("slurminfer.core.background.rounds.PAUSE_S", 0)

    async def main(world):
        noted = world.owner.ended

        def fail(relay):
            world.owner.ended = noted
            noted(relay)
            raise ZeroDivisionError

        world.owner.ended = fail
        await world.hear_both()
        FakeServer.made[0].fails = True
        world.relays.tell(View([]))
        await world.owner.until(lambda: world.owner.ends == [0])
        await world.hear_both()
        assert len(FakeServer.made) == 3
        assert not world.running.done()

    run(main, as_task)
    assert "relay goes on after an error" in caplog.text


def test_a_silent_relay_is_killed_and_one_that_reports_is_not(monkeypatch):
    monkeypatch.setattr(Backoff, "after", lambda self, lived: 0.0)

    async def main(world):
        await world.hear_both()
        for server in FakeServer.made:
            server.send(server.report())
        await world.owner.until(lambda: {r for r, m in world.owner.said if isinstance(m, Report)} == {0, 1})
        for _ in range(MOST_SILENT_TICKS):
            world.relays.tick()
        world.relays._keepers[1]._hear(FakeServer.made[1].report())
        world.relays.tick()
        await world.owner.until(lambda: world.owner.ends)
        assert world.owner.ends == [0]

    run(main, as_task)


def test_drained_relays_end_with_their_last_report_and_are_not_started_again():
    async def main(world):
        await world.hear_both()
        answered = sum(server.answered for server in FakeServer.made)
        await world.relays.drain(5.0)
        assert sorted(world.owner.ends) == [0, 1] and len(FakeServer.made) == 2
        last = {relay: message for relay, message in world.owner.said if isinstance(message, Report)}
        assert sum(report.counters.retries for report in last.values()) == answered
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*world.address)

    run(main, as_task)


class Tls(World):
    """Relays that speak HTTPS with clients."""

    def tell(self, clients, commands=None):
        self.relays.tell(Certificates(clients=clients, commands=commands))

    async def certificate(self, port=None, context=None):
        """What a client sees, in PEM."""
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port or self.address[1], ssl=context)
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            await reader.read()
            writer.close()
            return ssl.DER_cert_to_PEM_cert(der)


def test_relays_speak_https_once_they_have_a_certificate_and_take_a_renewed_one():
    async def main():
        FakeServer.made.clear()
        world = await Tls().start(as_task, count=1, tls="self_signed")
        try:
            first, second = (self_signed(new_key(), "x", ["127.0.0.1"], datetime.now(UTC)) for _ in range(2))
            asking = asyncio.create_task(world.certificate())  # waits in the backlog
            world.tell(first)
            assert await asking in first
            world.tell(second)
            while await world.certificate() not in second:
                await asyncio.sleep(0)
            assert len(FakeServer.made) == 1 and world.owner.ends == []
        finally:
            await world.stop()

    asyncio.run(main())


def test_our_own_commands_are_accepted_with_the_identity_only(tmp_path):
    async def main():
        world = await Tls().start(as_task, count=1)
        try:
            path, other = tmp_path / "router.pem", tmp_path / "other.pem"
            for one in (path, other):
                make_identity(one, "slurminfer router x")
            world.tell(None, path.read_text(encoding="ascii"))
            port = world.private[0].getsockname()[1]
            assert await world.certificate(port, client_context(path)) in path.read_text(encoding="ascii")
            with pytest.raises(ssl.SSLError):
                await world.certificate(port, client_context(other))
        finally:
            await world.stop()

    asyncio.run(main())


def test_relays_that_cannot_be_started_do_not_end_the_router(monkeypatch):
    monkeypatch.setattr(Backoff, "after", lambda self, lived: 0.0)
    failures = iter([True, True, True, False, False])

    def starter(ends):
        if next(failures):
            raise OSError(12, "Cannot allocate memory")
        return as_task(ends)

    async def main(world):
        await world.hear_both()

    run(main, starter)


def test_another_router_cannot_have_the_same_port():
    async def main():
        ours = await open_listeners("127.0.0.1", 0, 2)
        waits = []

        async def sleep(seconds):
            waits.append(seconds)

        port = ours[0].getsockname()[1]
        with pytest.raises(RouterError, match=rf"127.0.0.1:{port}: Address already in use; choose another router.port"):
            await open_listeners("127.0.0.1", port, 2, sleep=sleep)
        assert sum(waits) < 3

        async def free(seconds):
            for sock in ours:
                sock.close()

        again = await open_listeners("127.0.0.1", port, 1, sleep=free)  # a predecessor's relays have just ended
        again[0].close()

    asyncio.run(main())


def test_two_routers_that_begin_at_the_same_moment_do_not_share_a_port():
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):  # as listening_socket does it, at once
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError):
            second.listen()


@pytest.mark.process
def test_a_killed_relay_is_replaced_the_other_goes_on_and_its_backlog_is_served():
    async def main(world):
        pids = await world.hear_both()
        os.kill(pids[0], signal.SIGKILL)
        answers = await asyncio.gather(*(world.ask() for _ in range(40)))
        found = dict(answers)
        assert found[1] == pids[1] and found[0] != pids[0]
        assert world.owner.ends == [0]

    run(main, as_process)


@pytest.mark.process
def test_a_stopped_relay_is_replaced():
    async def main(world):
        pids = await world.hear_both()
        await world.owner.until(lambda: {r for r, m in world.owner.said if isinstance(m, Report)} == {0, 1})
        os.kill(pids[0], signal.SIGSTOP)
        for _ in range(MOST_SILENT_TICKS + 1):
            world.relays._keepers[0].tick()
        await world.owner.until(lambda: world.owner.ends == [0])
        assert (await world.hear_both())[0] != pids[0]

    run(main, as_process)


@pytest.mark.process
def test_relays_end_when_the_supervisor_is_gone_and_leave_the_port():
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.router.control import test_relays as t
async def main():
    world = await t.World().start(t.as_process)
    print(world.address[1], *(await world.hear_both()).values(), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

    async def main():
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        port, *pids = map(int, (await process.stdout.readline()).split())
        process.kill()
        await process.wait()
        for listener in await open_listeners("127.0.0.1", port, 2):
            listener.close()
        return pids

    pids = asyncio.run(main())
    waiting.eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_relay_gives_large_tables_back_unless_the_user_has_set_something_else():
    assert environment({"HOME": "/h"}) == {"HOME": "/h", "MALLOC_MMAP_THRESHOLD_": "1048576"}
    assert environment({"MALLOC_MMAP_THRESHOLD_": "7"}) == {"MALLOC_MMAP_THRESHOLD_": "7"}
