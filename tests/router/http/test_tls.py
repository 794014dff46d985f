"""TLS on both sides: a server for clients, the port for our own commands, and a gate between pool and engine."""

import asyncio
from contextlib import closing

import pytest

from slurminfer.core.net.acceptor import Acceptor
from slurminfer.core.net.byte_relay import Front, own_unix_socket
from slurminfer.core.net.identity import client_context, make_identity, server_context
from slurminfer.core.net.sockets import listening_socket
from slurminfer.router.http.pool import TlsPool
from slurminfer.router.http.state import LINGER_S

from ...support.waiting import eventually
from .conftest import answers, head, post, until_closed
from .test_pool import HEAD, OK, Sink, Upstream, Worker


@pytest.fixture
def connected(secure):
    """Connects to a further port of the server."""
    return lambda *, private: secure(private=private)()


def test_a_client_over_tls_is_answered(connected, served):
    with closing(connected(private=False)) as client:
        client.sendall(post(b"a", line="POST /parts HTTP/1.1") + post(b"b", "Connection: close"))
        assert [body for _, _, body in answers(until_closed(client))] == [b"a", b"b"]


def test_a_refusal_over_tls_arrives_although_the_client_goes_on_sending(connected, served):
    with closing(connected(private=False)) as client:
        client.sendall(head("Content-Length: 100000", key="wrong"))
        client.sendall(bytes(50_000))
        assert client.recv(10_000).startswith(b"HTTP/1.1 401 ")
        served.tick(LINGER_S)
        eventually(lambda: served.call(lambda: served.server.connections) == 0, "it is cut")


def test_a_client_over_tls_that_does_not_say_goodbye_is_cut_in_time(connected, served):
    with closing(connected(private=False)) as client:
        client.sendall(post(b"a", "Connection: close"))
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
        served.tick(int(served.guard.limits.idle_s))
        eventually(lambda: served.call(lambda: served.server.connections) == 0, "it is cut")


def test_a_peer_has_so_long_to_end_its_connection(fast, served, tmp_path):
    make_identity(tmp_path / "identity", "router")

    async def listen(listener):
        context = server_context(tmp_path / "identity")
        acceptor = Acceptor(listener, context, served.server.protocol, shutdown_s=0.01)
        acceptor.start()
        return acceptor

    listener = listening_socket("127.0.0.1")
    served.address = listener.getsockname()
    acceptor = fast.run(listen(listener))
    with closing(client_context(tmp_path / "identity").wrap_socket(served.connect())) as client:
        client.sendall(post(b"a", "Connection: close"))
        eventually(lambda: served.call(lambda: served.server.connections) == 0, "it is closed without its goodbye")
    served.call(acceptor.close)


def test_our_own_commands_are_never_strangers(connected, served):
    with closing(connected(private=True)) as client:
        served.tick(served.guard.limits.stranger_s)
        client.sendall(post(b"a", "Connection: close"))
        assert answers(until_closed(client))[0][2] == b"a"
    assert served.call(lambda: served.guard.counts) == {"stranger": 0, "idle": 0, "busy": 0}


def test_a_client_over_tls_that_hangs_up_ends_its_handler(connected, served):
    client = connected(private=False)
    client.sendall(post(b"", line="POST /wait HTTP/1.1"))
    eventually(lambda: served.handler.requests, "it is being answered")
    client.close()
    eventually(lambda: served.handler.cancelled == 1, "the handler is cancelled")


class Gated:
    """A pool before a gate before an engine."""

    def __init__(self, loop, folder):
        self.loop, self.worker = loop, Worker()
        loop.run(self._start(folder))

    async def _start(self, folder):
        make_identity(folder / "identity", "worker")
        loop = asyncio.get_running_loop()
        engine = folder / "engine.sock"
        self._server = await loop.create_unix_server(lambda: Upstream(self.worker), str(engine))
        listener = listening_socket("127.0.0.1")
        self._gate = Acceptor(listener, server_context(folder / "identity"), lambda: Front(own_unix_socket(engine)))
        self._gate.start()
        host, port = listener.getsockname()
        self.pool = TlsPool(host, port, client_context(folder / "identity"))

    def ask(self):
        self.worker.when_asked = lambda connection: connection.transport.write(OK + b"Content-Length: 1\r\n\r\na")
        sink = Sink()
        self.loop.run(self.pool.send(HEAD, b"{}", sink))
        eventually(lambda: sink.end, "it is answered")
        assert (sink.body, sink.end) == (b"a", "end")

    def idle(self):
        async def idle():
            return self.pool.idle

        return self.loop.run(idle())

    def stop(self):
        def stop():
            self.pool.close()
            self._gate.close()
            self._server.close()
            for connection in self.worker.connections:
                connection.transport.abort()

        self.loop.soon(stop)
        eventually(lambda: self.worker.lost == len(self.worker.connections), "all is closed")


@pytest.fixture
def gated(fast, tmp_path):
    gated = Gated(fast, tmp_path)
    yield gated
    gated.stop()


def test_a_connection_through_the_gate_is_used_again(gated):
    for _ in range(3):
        gated.ask()
    assert len(gated.worker.connections) == 1


def test_an_engine_that_closes_an_idle_connection_takes_the_routers_end_with_it(gated):
    gated.ask()
    gated.loop.soon(gated.worker.connections[0].transport.close)
    eventually(lambda: gated.idle() == 0, "the router has dropped it")
    gated.ask()
    assert len(gated.worker.connections) == 2


def test_a_request_that_meets_the_closing_half_way_is_answered(gated):
    gated.ask()
    first = gated.worker.connections[0]
    sink = Sink()

    async def at_once():
        first.transport.close()  # the router cannot know yet
        await gated.pool.send(HEAD, b"{}", sink)

    gated.loop.run(at_once())
    eventually(lambda: sink.end, "it is answered")
    assert (sink.body, sink.end) == (b"a", "end")
    assert len(gated.worker.connections) == 2
