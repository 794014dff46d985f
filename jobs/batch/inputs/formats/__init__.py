"""The formats of batch inputs: one file each, listed in table.py."""
