"""Ports that are held for an engine."""

import socket

import pytest

from slurminfer.core.net.sockets import hold_port, is_port_free

HOST = "127.0.0.1"


def reusing(address: tuple[str, int]) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    return server


@pytest.mark.parametrize("address", [HOST, "0.0.0.0"])
def test_a_held_port_is_for_whoever_asks_for_it(address):
    with hold_port(HOST) as held:
        port = held.getsockname()[1]
        assert is_port_free(HOST, port)
        with reusing((address, port)) as server:
            server.listen()
            assert not is_port_free(HOST, port)
            with socket.create_connection((HOST, port)):
                pass
        assert is_port_free(HOST, port)


def test_a_held_port_is_given_to_nobody_who_asks_for_any():
    held = [hold_port(HOST) for _ in range(50)]
    others = [reusing((HOST, 0)) for _ in range(2000)]
    ports = {one.getsockname()[1] for one in held}
    assert len(ports) == 50
    assert not ports & {other.getsockname()[1] for other in others}
    for one in [*held, *others]:
        one.close()


def test_nobody_connects_to_himself_through_a_held_port():
    with hold_port(HOST) as held:
        for _ in range(50):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(held.getsockname())
