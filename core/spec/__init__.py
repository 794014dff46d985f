"""The spec of a deployment: its sections, and what is valid in them."""
