"""The way of a generation request to a worker and of its answer back. Start reading at forward.py."""
