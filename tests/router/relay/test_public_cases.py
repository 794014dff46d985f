"""What other routers are known to get wrong, with a real relay before stub workers."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from slurminfer.router.http.bodies import BodyLimits
from slurminfer.router.policies import owners
from slurminfer.router.relay import server
from slurminfer.router.tenants.tenant import Priority

from .relayed import HEAD, LAST, TEXT, Asked, answer, chunk, event, hang, text_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def threads():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def request(body: dict | bytes, *lines: str, key: str = "key") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(data)}", "", ""]).encode() + data


def in_flight(relay) -> int:
    return sum(relay.board.in_flight(slot) for slot in range(relay._slot))


def waiting(relay) -> int:
    return sum(relay.report().queued.values())


# Clients' mistakes.


def test_prompts_that_are_too_long_close_nothing_to_valid_ones(two):
    async def picky(asked):
        if len(asked.raw) > 10_000:
            await asked.whole({"error": {"message": "the prompt is too long", "code": "context_length"}}, status=400)
        else:
            await asked.answer()

    for stub in two.stubs:
        stub.behaviour = picky
    long = [{"role": "user", "content": "x" * 20_000}]
    for _ in range(10):
        for stream in (False, True):
            refused = two.chat(messages=long, stream=stream)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length")
            assert [text_of(two.chat(stream=stream)) for _ in range(2)] == [TEXT, TEXT]
    assert not two.suspects
    assert {worker.served > 0 for worker in two.server._workers.all()} == {True}, "both workers answer"


@pytest.mark.parametrize("lines", [["Content-Length: {size}"], ["Transfer-Encoding: chunked"]])
def test_a_storm_of_bodies_that_are_too_large_is_bounded_and_others_are_served(relayed, monkeypatch, lines, eventually):
    limits = BodyLimits(each=1 << 20, together=4 << 20)
    monkeypatch.setattr(server, "body_limits", lambda relays: limits)
    relay = relayed()
    relay.add("w-0")
    held = []
    line = lines[0].format(size=limits.each - 1)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n{line}\r\n\r\n".encode()
    piece = bytes(1 << 16) if "Length" in line else b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    other = relay.add_tenant("other", name="other")
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(socket.create_connection(relay.address))) for _ in range(20)]
        for client in clients:
            client.settimeout(20)
            client.sendall(head)
        for _ in range(20):
            for client in list(clients):
                try:
                    client.sendall(piece)
                except (ConnectionError, TimeoutError):
                    clients.remove(client)
            held.append(relay.run(lambda: relay.server._server.held_bytes))
        assert relay.chat(other).status_code == 200, "one tenant's bodies leave room for those of another"
    assert max(held) <= limits.together
    eventually(lambda: relay.run(lambda: relay.server._server.held_bytes) == 0)


def test_nobody_can_fill_the_memory_for_bodies_without_a_key(one):
    for path in ("/health", "/", "/openapi.json", "/v1/completions"):
        with closing(socket.create_connection(one.address)) as client:
            client.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n".encode() + bytes(9999)
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
            assert one.run(lambda: one.server._server.held_bytes) == 0


# Many at once.


def test_2048_requests_at_once_on_8_workers_are_all_answered(relayed, eventually):
    relay = relayed(reserved=0)
    gates: list[asyncio.Event] = []

    async def when_all_are_there(asked):
        if not gates[0].is_set():
            await gates[0].wait()
        await asked.answer()

    async def gate():
        gates.append(asyncio.Event())

    relay._loop.run(gate())
    for number in range(8):
        relay.add(f"w-{number}", when_all_are_there, capacity=16)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(socket.create_connection(relay.address))) for _ in range(2048)]
        for client in clients:
            client.sendall(request(CHAT, "Connection: close"))
        eventually(lambda: in_flight(relay) + waiting(relay) == 2048, "all are there")
        assert in_flight(relay) == 8 * 20, "as many as the workers take"
        relay.run(gates[0].set)
        for client in clients:
            client.settimeout(60)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert sum(len(stub.asked) for stub in relay.stubs) == 2048, "none was sent twice"


def test_one_worker_that_hangs_keeps_no_request_of_the_others(relayed, threads, eventually):
    relay = relayed(policy="least_load")
    hanging = relay.add("w-0", hang, capacity=64)
    for number in (1, 2, 3):
        relay.add(f"w-{number}", capacity=64)
    all_ = [threads.submit(relay.chat) for _ in range(12)]
    eventually(lambda: hanging.asked and sum(one.done() for one in all_) == 12 - len(hanging.asked))
    for _ in range(20):
        stuck = len(hanging.asked)
        last = threads.submit(relay.chat)
        eventually(lambda last=last, stuck=stuck: last.done() or len(hanging.asked) > stuck)
        all_.append(last)
        if stuck > 6:
            break
    assert sum(one.done() for one in all_) == len(all_) - len(hanging.asked)
    relay.kill(hanging)  # now other workers take what it had
    assert {one.result(30).status_code for one in all_} == {200}


# Workers that are lost, or full.


async def die_after_the_head(asked: Asked) -> None:
    kind = "text/event-stream" if asked.body.get("stream") else "application/json"
    await asked.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 100\r\n\r\n".encode())
    asked.cut()


async def end_after_the_head(asked: Asked) -> None:
    kind = "text/event-stream" if asked.body.get("stream") else "application/json"
    await asked.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n\r\n".encode())


async def end_after_the_head_in_chunks(asked: Asked) -> None:
    kind = "text/event-stream" if asked.body.get("stream") else "application/json"
    await asked.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + LAST)


async def close_after_the_head(asked: Asked) -> None:
    kind = "text/event-stream" if asked.body.get("stream") else "application/json"
    await asked.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
    asked.writer.close()


@pytest.mark.usefixtures("short_suspicion")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "behaviour", [die_after_the_head, end_after_the_head, end_after_the_head_in_chunks, close_after_the_head]
)
def test_a_worker_that_ends_after_200_and_its_headers_is_never_an_empty_success(relay, behaviour, stream):
    relay.add("w-0", behaviour)
    relay.add("w-1", behaviour)
    refused = relay.chat(stream=stream)
    assert refused.status_code in (502, 503) and refused.json()["error"]["message"]


def test_a_burst_of_resets_while_connecting_ejects_nobody(one, threads, eventually):
    stub = one.stubs[0]
    one.kill(stub)
    waiting_ones = [threads.submit(one.chat) for _ in range(8)]
    eventually(lambda: one.suspects)
    assert {suspect.kind for suspect in one.suspects} == {"connect"}, "which ejects nobody (fleet/trust.py)"
    one._loop.run(stub.start())
    one.tell(stub.id, trouble="")
    assert {done.result(30).status_code for done in waiting_ones} <= {200, 503}
    eventually(lambda: one.chat().status_code == 200, "it is trusted again by its health alone")


@pytest.mark.parametrize("status", [429, 503])
def test_engines_that_are_full_for_a_while_are_not_given_up(two, status):
    async def full(asked):
        await asked.whole({"error": {"message": "full"}}, status=status)

    for stub in two.stubs:
        stub.behaviour = full
    assert {two.chat().status_code for _ in range(8)} == {status}
    for stub in two.stubs:
        stub.behaviour = answer
    assert {two.chat().status_code for _ in range(4)} == {200}
    assert not two.suspects


# Clients that go: their work is stopped at once, wherever it is.


def test_a_client_that_goes_while_it_waits_leaves_the_queue_and_no_worker_sees_it(one, eventually):
    stub = one.stubs[0]
    stub.behaviour = hang
    holders = [socket.create_connection(one.address) for _ in range(5)]  # capacity 4 times overcommit 1.25
    for holder in holders:
        holder.sendall(request(CHAT))
    eventually(lambda: in_flight(one) == 5)
    with closing(socket.create_connection(one.address)) as client:
        client.sendall(request(CHAT, "X-Request-Id: impatient"))
        eventually(lambda: waiting(one) == 1)
    eventually(lambda: waiting(one) == 0)
    for holder in holders:
        holder.close()
    eventually(lambda: stub.aborted == 5)
    eventually(one.is_idle)
    assert "impatient" not in [asked.headers["x-request-id"] for asked in stub.asked]


def test_a_client_that_goes_stops_both_workers_of_a_hedged_request(relayed, eventually):
    relay = relayed(hedge_after=0.01)
    stubs = [relay.add(f"w-{number}", hang) for number in range(2)]
    with closing(socket.create_connection(relay.address)) as client:
        client.sendall(request({**CHAT, "stream": True}))
        eventually(lambda: all(stub.asked for stub in stubs), "both work on it")
    eventually(lambda: [stub.aborted for stub in stubs] == [1, 1])
    eventually(relay.is_idle)
    assert not relay.suspects


def test_a_client_that_goes_after_it_had_to_give_way_leaves_the_queue(relayed, eventually):
    relay = relayed(overcommit=1)
    stub = relay.add("w-0", hang, capacity=1)
    relay.add_tenant("u", name="urgent", priority=Priority.INTERACTIVE)
    with closing(socket.create_connection(relay.address)) as batch:
        batch.sendall(request(CHAT, "X-Priority: batch"))
        eventually(lambda: in_flight(relay) == 1)
        with closing(socket.create_connection(relay.address)) as client:
            client.sendall(request(CHAT, key="u"))
            eventually(lambda: len(stub.asked) == 2 and waiting(relay) == 1, "batch has given way")
            batch.close()
            eventually(lambda: waiting(relay) == 0)
    eventually(relay.is_idle)
    eventually(lambda: stub.aborted == 2)


def test_a_client_that_never_reads_is_cut_after_a_while_and_its_worker_freed(one, eventually):
    async def flood(asked):
        await asked.send(HEAD)
        while True:
            asked.writer.write(chunk(event("x" * 10_000)))
            await asked.writer.drain()

    stub = one.stubs[0]
    stub.behaviour = flood
    with closing(socket.create_connection(one.address)) as client:
        client.sendall(request({**CHAT, "stream": True}))

        def is_paused() -> bool:
            return any(attempt._flow is not None and attempt._flow.paused for attempt in attempts_of(one))

        eventually(lambda: one.run(is_paused), "its worker is paused")
        for _ in range(599):
            one.run(one.server._server.tick)
        assert in_flight(one) == 1
        for _ in range(2):
            one.run(one.server._server.tick)
        eventually(one.is_idle)
    eventually(lambda: stub.aborted)


def attempts_of(relay) -> list:
    return [attempt for upstream in relay.server._workers.all() for attempt in upstream.attempts]


# Memory.


def test_unique_documents_leave_no_more_than_the_table_of_owners_holds(relayed, monkeypatch):
    """The table that other routers let grow is bounded; its true size is only too large for a quick test."""
    monkeypatch.setattr(owners.Owners.__init__, "__defaults__", (256, 0))
    relay = relayed()
    relay.add("w-0")
    sizes = []
    for number in range(60):
        document = f"{number} " * 2000
        assert relay.chat(messages=[{"role": "user", "content": document}]).status_code == 200
        sizes.append(relay.run(lambda: len(relay.server._policy._owners)))
    assert 128 < max(sizes) <= 256
