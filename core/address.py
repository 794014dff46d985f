"""Where the programs of one node listen."""

import fcntl
import os
import socket
import struct
from ipaddress import IPv4Address

# What distributions write into /etc/hosts for a machine's own name; no other node can reach it.
_PLACEHOLDERS = ("127.0.0.1", "127.0.1.1")
_ANYWHERE = ("192.0.2.1", 9)  # RFC 5737: documentation only; no packet is sent
_SIOCGIFADDR = 0x8915  # netdevice(7): a `struct ifreq` with the name in, with the address out
_IFREQ, _IFREQ_ADDRESS = "256s", slice(20, 24)


def node_address() -> str:
    """The IPv4 address of this node that the other nodes use; loopback if SLURMINFER_LOCAL=1.

    One address, not 0.0.0.0: compute nodes often have a public or management interface as well, and the key travels
    unencrypted. It serves the node itself too, so 127.0.0.1 besides would only be a second port to lose.
    """
    if os.environ.get("SLURMINFER_LOCAL") == "1":
        return "127.0.0.1"
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = _PLACEHOLDERS[0]
    return _default_source() or named if named in _PLACEHOLDERS else named


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address; None if none has. Loopback has all of 127.0.0.0/8."""
    wanted = IPv4Address(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack(_IFREQ, name.encode()))
            except OSError:  # it has no IPv4 address
                continue
            own = IPv4Address(answer[_IFREQ_ADDRESS])
            if own == wanted or (own.is_loopback and wanted.is_loopback):
                return name
    return None


def _default_source() -> str | None:
    """The address that packets to anywhere leave from, or None without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
