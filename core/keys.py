"""API keys and other secrets that travel as text, and how they are hidden where others may read."""

import re
import secrets

MASK = "***"  # stands where a secret was
_SECRET_NAME = re.compile(
    r"SECRET|PASSW|PASSPHRASE|CREDENTIAL|COOKIE|AUTHORIZATION|(?:KEY|TOKEN|PASS|AUTH|PRIVATE|JWT)S?(?:_|\d|$)",
    re.IGNORECASE,
)


def new_key() -> str:
    """A new secret of 256 bits that no command line, header, shell, YAML or TOML file takes for something else.

    It begins with letters, so it is neither an option (-x) nor a number (1e5), and has no character that needs quotes.
    """
    return f"sk-{secrets.token_hex(32)}"


def is_secret_name(name: str) -> bool:
    """Whether an environment variable's value is secret by its name, such as HF_TOKEN or SLURM_JWT."""
    return _SECRET_NAME.search(name) is not None
