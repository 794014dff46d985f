"""API keys and other secrets that travel as text."""

import secrets


def new_key() -> str:
    """A new secret of 256 bits that no command line, header, shell, YAML or TOML file takes for something else.

    It begins with letters, so it is neither an option (-x) nor a number (1e5), and has no character that needs quotes.
    """
    return f"sk-{secrets.token_hex(32)}"
