"""Which network interface has an address."""

import socket

import pytest

from slurminfer.core.address import interface_of, node_address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.77.3.11"])
def test_loopback_has_all_of_its_network(address):
    assert interface_of(address) == "lo"


def test_the_address_of_this_node_has_an_interface():
    assert interface_of(node_address()) in {name for _, name in socket.if_nameindex()}


def test_nobody_here_has_an_address_of_others():
    assert interface_of("192.0.2.1") is None
