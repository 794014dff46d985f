"""Answers of every API whose workers are killed in the middle, beside the undisturbed ones."""

from .measure import measure

__all__ = ["measure"]
