"""The channel: messages both ways, a peer that does not read, that is gone, or that sends garbage."""

import asyncio
import socket

import pytest

from slurminfer.router.control.channel import ChannelError, relay_end, supervisor_end
from slurminfer.router.control.counters import Counters
from slurminfer.router.control.messages import Drain, Report, Setup, Suspect, Tenants, View, WorkerView
from slurminfer.router.tenants.tenant import Priority, Tenant, Usage

SETUP = Setup(index=1, relays=2, router={"port": 0}, pools=[{"name": "gpu"}], control_socket="/x/control.sock")


def worker(slot: int, note: str = "") -> WorkerView:
    return WorkerView(
        slot=slot, id=f"gpu-{slot}", pool="gpu", engine="vllm", model="m", job="7", epoch=0, host="n1",
        url="https://10.0.0.1:7", socket=None, identity="/x", key="k", capacity=4, state="ready", choosable=True,
        trouble=note,
    )  # fmt: skip


def report(requests: int) -> Report:
    return Report(
        counters=Counters(retries=requests),
        usage={"a": Usage(requests=requests)},
        queued={},
        connections={},
        rates={3: (1.0, 2.0)},
    )


class End:
    """What one end has heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()


async def pair():
    ours, theirs = socket.socketpair()
    left, right = End(), End()
    supervisor = await supervisor_end(ours, left.heard.put_nowait, left.lost.set_result)
    relay = await relay_end(theirs, right.heard.put_nowait, right.lost.set_result)
    return supervisor, left, relay, right


def test_messages_arrive_as_they_were_sent_and_in_order():
    async def main():
        supervisor, left, relay, right = await pair()
        tenant = Tenant(name="a", slot=2, digest="d", priority=Priority.BATCH, tokens_per_day=5)
        sent = [SETUP, View([worker(n) for n in range(2000)]), Tenants([tenant], {"a": 3}), Drain(2.5)]
        for message in sent:
            supervisor.send(message)
        assert [await right.heard.get() for _ in sent] == sent
        back = [Suspect(slot=3, reason="x", kind="connect", at=1.5), report(4)]
        for message in back:
            relay.send(message)
        assert [await left.heard.get() for _ in back] == back
        supervisor.close()
        assert await right.lost is None and await left.lost is None
        relay.send(report(5))  # into the void

    asyncio.run(main())


def is_behind(channel):
    return channel.behind_since is not None


def test_a_view_that_is_not_sent_yet_gives_way_to_a_later_one():
    async def main():
        ours, theirs = socket.socketpair()
        left, right = End(), End()
        supervisor = await supervisor_end(ours, left.heard.put_nowait, left.lost.set_result)
        sent = 0
        while not is_behind(supervisor):  # nobody reads
            supervisor.send(View([worker(sent, "x" * 100_000)]))
            sent += 1
        for number in range(1000):
            supervisor.send(View([worker(sent + number, "x" * 100_000)]))
        supervisor.send(Drain(1.0))
        await relay_end(theirs, right.heard.put_nowait, right.lost.set_result)
        heard = [await right.heard.get() for _ in range(sent + 2)]
        assert [view.workers[0].slot for view in heard[:-1]] == [*range(sent), sent + 999]
        assert heard[-1] == Drain(1.0)
        assert not is_behind(supervisor)
        supervisor.close()
        await right.lost

    asyncio.run(main())


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1", b"\0\0\0\x03abc", b"\0\0\0\x00", b"\0\0\1\0" + b"\x91" * 256],
)
def test_garbage_ends_the_channel_with_a_reason(garbage):
    async def main():
        ours, theirs = socket.socketpair()
        left = End()
        await supervisor_end(ours, left.heard.put_nowait, left.lost.set_result)
        with theirs:
            theirs.sendall(garbage)
            assert isinstance(await left.lost, ChannelError)
        assert left.heard.empty()

    asyncio.run(main())


def test_messages_of_the_other_direction_are_garbage():
    async def main():
        supervisor, left, relay, _ = await pair()
        relay.send(SETUP)
        assert isinstance(await left.lost, ChannelError)
        supervisor.send(SETUP)  # into the void

    asyncio.run(main())


def test_pieces_and_several_messages_at_once_are_taken_apart():
    async def main():
        supervisor, left, _, right = await pair()
        ours, theirs = socket.socketpair()
        copy = End()
        writer = await supervisor_end(theirs, lambda _: None, lambda _: None)
        writer.send(Drain(1.0))
        writer.send(SETUP)
        writer.close()
        data = ours.recv(10_000)
        ours.close()
        end, other = socket.socketpair()
        await relay_end(other, copy.heard.put_nowait, copy.lost.set_result)
        for at in range(len(data)):
            end.sendall(data[at : at + 1])
            await asyncio.sleep(0)
        end.close()
        assert await copy.lost is None
        assert [copy.heard.get_nowait() for _ in range(2)] == [Drain(1.0), SETUP]
        supervisor.close()
        await right.lost
        await left.lost

    asyncio.run(main())
