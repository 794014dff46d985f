"""Addresses and the interfaces that have them."""

import socket
from collections import namedtuple

import psutil
import pytest

from slurminfer.core.errors import SpecError
from slurminfer.core.net.address import interface_env, interface_of, node_address

Entry = namedtuple("Entry", "family address")


@pytest.fixture
def node(monkeypatch):
    """A node with a management network, which its hostname belongs to, and a fast one."""
    monkeypatch.delenv("SLURMINFER_LOCAL", raising=False)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.1.0.7")
    interfaces = {
        "lo": [Entry(socket.AF_INET, "127.0.0.1"), Entry(socket.AF_INET6, "::1")],
        "eth0": [Entry(socket.AF_PACKET, "02:00:00:00:00:01"), Entry(socket.AF_INET, "10.1.0.7")],
        "ib0": [Entry(socket.AF_INET, "10.2.0.7")],
        "ib0:1": [Entry(socket.AF_INET, "10.2.1.7")],
        "ib1": [Entry(socket.AF_INET6, "fe80::1")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)


def test_a_node_has_the_address_of_its_name(node):
    assert node_address() == "10.1.0.7"


def test_the_user_may_choose_the_interface(node, monkeypatch):
    monkeypatch.setenv("SLURMINFER_INTERFACE", "ib0")
    assert node_address() == "10.2.0.7"


def test_local_mode_stays_on_loopback(node, monkeypatch):
    monkeypatch.setenv("SLURMINFER_INTERFACE", "ib0")
    monkeypatch.setenv("SLURMINFER_LOCAL", "1")
    assert node_address() == "127.0.0.1"


@pytest.mark.parametrize("interface", ["ib1", "ib7"])
def test_an_interface_without_an_ipv4_address_is_refused_with_those_that_have_one(node, monkeypatch, interface):
    monkeypatch.setenv("SLURMINFER_INTERFACE", interface)
    with pytest.raises(SpecError) as caught:
        node_address()
    assert f"SLURMINFER_INTERFACE = '{interface}': {socket.gethostname()} has no such interface" in str(caught.value)
    assert str(caught.value).endswith("it has lo (127.0.0.1), eth0 (10.1.0.7), ib0 (10.2.0.7)")


@pytest.mark.parametrize(
    ("address", "interface"),
    [("10.1.0.7", "eth0"), ("10.2.0.7", "ib0"), ("10.2.1.7", "ib0"), ("127.0.0.1", "lo"), ("127.77.3.11", "lo")],
)
def test_the_interface_of_an_address(node, address, interface):
    assert interface_of(address) == interface


def test_an_address_of_another_node_belongs_to_no_interface(node):
    assert interface_of("10.9.9.9") is None


def test_the_own_address_belongs_to_an_interface_of_this_machine():
    assert interface_of("127.0.0.1") in psutil.net_if_addrs()


def test_nccl_and_gloo_are_told_the_interface_unless_the_user_has():
    assert interface_env("127.0.0.1", {}) == {"NCCL_SOCKET_IFNAME": "=lo", "GLOO_SOCKET_IFNAME": "lo"}
    assert interface_env("127.0.0.1", {"NCCL_SOCKET_IFNAME": "ib0"}) == {"GLOO_SOCKET_IFNAME": "lo"}
    assert interface_env("192.0.2.77", {}) == {}
