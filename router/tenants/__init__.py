"""Keys, quotas and usage of those who send requests."""
