"""How the ranks of a model meet and know each other: a handshake, authenticated channels, a store, heartbeats."""
