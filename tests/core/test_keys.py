"""Keys that no program takes for something else."""

import re
import shlex
import tomllib

from slurminfer.core.keys import new_key


def test_a_key_is_long_and_never_the_same():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk-[0-9a-f]{64}", key) for key in keys)


def test_nothing_needs_to_quote_it():
    key = new_key()
    assert shlex.split(f"--api-key {key}") == ["--api-key", key] and shlex.quote(key) == key
    assert tomllib.loads(f"{key} = 1") == {key: 1}
    assert key.isascii() and not key[0].isdigit() and not key.startswith("-")
