"""Answers as JSON and events, from the tokens that the engine generates."""
