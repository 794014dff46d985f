"""Responses of OpenAI's responses API that are kept for a while."""
