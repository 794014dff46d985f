"""The way of a request to a worker and of its answer back. Start reading at failover.py."""
