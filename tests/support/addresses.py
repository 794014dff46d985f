"""Addresses of this machine for servers and ranks that a test starts."""

import socket


def free_address() -> str:
    """A HOST:PORT on loopback that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
