"""The router against others, and none."""
