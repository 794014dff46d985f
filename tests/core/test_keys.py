"""Keys that no program takes for something else, and names of variables that hold them."""

import re
import shlex
import tomllib

import pytest

from slurminfer.core.keys import is_secret_name, new_key


def test_a_key_is_long_and_never_the_same():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"sk-[0-9a-f]{64}", key) for key in keys)


def test_nothing_needs_to_quote_it():
    key = new_key()
    assert shlex.split(f"--api-key {key}") == ["--api-key", key] and shlex.quote(key) == key
    assert tomllib.loads(f"{key} = 1") == {key: 1}
    assert key.isascii() and not key[0].isdigit() and not key.startswith("-")


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "DB_PASSWORD",
        "MY_APIKEYS",
        "api_key_2",
        "DBPASS",
        "SLURM_JWT",
        "HTTP_COOKIES",
    ],
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "HOME", "AUTHOR"])
def test_names_of_no_secrets(name):
    assert not is_secret_name(name)
