"""The supervisor and the relays as processes: channel, messages, board."""
