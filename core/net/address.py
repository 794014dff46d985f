"""Where the programs of one node listen, and which network interface they use."""

import os
import socket
from collections.abc import Mapping
from ipaddress import ip_address

import psutil

from ..errors import SpecError
from ..slurm_env import is_local

INTERFACE = "SLURMINFER_INTERFACE"  # a user's word for which network to use
LOCAL_ADDRESS = "127.0.0.1"  # of the programs that `--local` starts

# What distributions write into /etc/hosts for a machine's own name; no other node can reach it.
_PLACEHOLDERS = ("127.0.0.1", "127.0.1.1")
_ANYWHERE = ("192.0.2.1", 9)  # RFC 5737: documentation only; no packet is sent


def node_address() -> str:
    """The IPv4 address of this node that the other nodes use; loopback for local workers.

    By default it is what the own hostname resolves to. SLURMINFER_INTERFACE=ib0 takes that interface's: for clusters
    whose hostnames belong to a slow management network. Raises SpecError if that has none.

    One address, not 0.0.0.0: compute nodes often have a public or management interface as well, and the key travels
    unencrypted. It serves the node itself too, so 127.0.0.1 besides would only be a second port to lose.
    """
    if is_local():
        return LOCAL_ADDRESS
    chosen = os.environ.get(INTERFACE)
    if chosen:
        return _address_of(chosen)
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = _PLACEHOLDERS[0]
    return _default_source() or named if named in _PLACEHOLDERS else named


def interface_of(address: str) -> str | None:
    """The network interface that has the IPv4 `address`; None if no one has."""
    addresses = _addresses()
    exact = next((name for name, own in addresses.items() if address in own), None)
    if exact is None and ip_address(address).is_loopback:  # which has one address, and answers to 127.0.0.0/8
        return next((name for name, own in addresses.items() if any(ip_address(one).is_loopback for one in own)), None)
    return exact


def interface_env(address: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What keeps NCCL and Gloo to the network of `address`; by themselves they may choose another, or loopback.

    What the user has set stays.
    """
    interface = interface_of(address)
    if interface is None:
        return {}
    wanted = {"NCCL_SOCKET_IFNAME": f"={interface}", "GLOO_SOCKET_IFNAME": interface}  # NCCL: without =, a prefix
    return {name: value for name, value in wanted.items() if name not in environ}


def _address_of(interface: str) -> str:
    addresses = _addresses()
    if not addresses.get(interface):
        there = ", ".join(f"{name} ({own[0]})" for name, own in addresses.items())
        expected = f"{socket.gethostname()} has no such interface with an IPv4 address; it has {there}"
        raise SpecError(INTERFACE, interface, expected)
    return addresses[interface][0]


def _addresses() -> dict[str, list[str]]:
    """The IPv4 addresses of every interface that has any. The kernel lists further ones as NAME:LABEL."""
    found: dict[str, list[str]] = {}
    for label, addresses in psutil.net_if_addrs().items():
        own = [entry.address for entry in addresses if entry.family is socket.AF_INET]
        found.setdefault(label.partition(":")[0], []).extend(own)
    return {name: own for name, own in found.items() if own}


def _default_source() -> str | None:
    """The address that packets to anywhere leave from, or None without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
