"""The container that an engine runs in."""
