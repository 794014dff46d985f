"""Jinja templates, in which a prompt is made of a row: they end soon and stay small, whatever they say."""
