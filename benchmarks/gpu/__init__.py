"""Engines on GPUs, straight and behind the router."""
