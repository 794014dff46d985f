"""One adapter per engine: how to start it, how to read its logs, and what it refuses. Start reading at table.py."""
