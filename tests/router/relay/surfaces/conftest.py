"""The relays of the folder above."""
