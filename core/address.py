"""Where the programs of one node listen."""

import os
import socket

# What distributions write into /etc/hosts for a machine's own name; no other node can reach it.
_PLACEHOLDERS = ("127.0.0.1", "127.0.1.1")
_ANYWHERE = ("192.0.2.1", 9)  # RFC 5737: documentation only; no packet is sent


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


def _default_source() -> str | None:
    """The address that packets to anywhere leave from, or None without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
