"""Requests read and checked: their fields, bounds and defaults."""
