"""Interfaces, their addresses, and what the machine's name resolves to."""

import socket
from ipaddress import ip_address
from pathlib import Path

import psutil

from ...core.errors import SpecError
from ...core.net.address import node_address
from ...core.site.machine import Interface, Network

_INFINIBAND = Path("/sys/class/infiniband")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def network(infiniband: Path = _INFINIBAND) -> Network:
    """How this machine is reached."""
    host = socket.gethostname()
    return Network(
        host=host,
        address=_address(),
        host_addresses=_resolved(host),
        interfaces=_interfaces(),
        infiniband=_active_ports(infiniband),
    )


def targets(seen: Network) -> dict[str, str]:
    """The addresses at which others may try to reach the machine, each with its interface's name."""
    found = {address: one.name for one in seen.interfaces for address in one.addresses if not _is_loopback(address)}
    named = (seen.address, *seen.host_addresses)
    return {**{address: "the host's name" for address in named if address}, **found}


def from_here(address: str, own: Network) -> list[str]:
    """The address as this machine writes it: a link-local one is reached through an interface of ours, its zone.

    Of the same name, as nodes of a cluster are alike; else through any that has link-local addresses too.
    """
    plain, _, zone = address.partition("%")
    if not zone:
        return [address]
    zones = [one.name for one in own.interfaces if any("%" in other for other in one.addresses)]
    return [f"{plain}%{name}" for name in ([zone] if zone in zones else zones)]


def _address() -> str:
    try:
        return node_address()
    except SpecError:  # SLURMINFER_INTERFACE names none of this machine's
        return ""


def _resolved(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _interfaces() -> tuple[Interface, ...]:
    """Those that are up and have an address."""
    stats = psutil.net_if_stats()
    found = []
    for name, entries in psutil.net_if_addrs().items():
        state = stats.get(name.partition(":")[0])
        addresses = tuple(entry.address for entry in entries if entry.family in _FAMILIES)
        if addresses and (state is None or state.isup):
            speed, mtu = (state.speed or None, state.mtu) if state else (None, None)
            found.append(Interface(name=name, addresses=addresses, speed_mbps=speed, mtu=mtu))
    return tuple(found)


def _active_ports(infiniband: Path) -> tuple[str, ...]:
    """Devices of InfiniBand, RoCE or Omni-Path with their rates, of which a port is active."""
    ports = sorted(infiniband.glob("*/ports/*"))
    active = (port for port in ports if "ACTIVE" in _text(port / "state"))
    return tuple(f"{port.parents[1].name}: {_text(port / 'rate')}".rstrip(": ") for port in active)


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
