"""Requests that the supervisor answers: its pages and uploads of files."""
