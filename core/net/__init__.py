"""Sockets, addresses, TLS between our own programs, and limits on what strangers may send."""
