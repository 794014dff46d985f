"""A model, and the stores that copies of it are in."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slurminfer.nodes.staging.store import Store


@pytest.fixture
def model(tmp_path) -> Path:
    """A directory with what engines read, and what they do not."""
    folder = tmp_path / "shared" / "small"
    (folder / "extra").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "extra/template.jinja"):
        (folder / name).write_text(f"the {name}")
    (folder / "model.safetensors").write_bytes(os.urandom(300_001))
    (folder / "empty.txt").touch()
    os.utime(folder / "config.json", ns=(1_600_000_000_123_456_789,) * 2)
    return folder


@pytest.fixture
def disk(tmp_path) -> Path:
    """A folder on the node's own disk."""
    folder = tmp_path / "disk"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def said() -> list[str]:
    """What stores have told the log."""
    return []


@pytest.fixture
def open_store(disk, said) -> Callable[..., Store]:
    def start(pause: Callable[[float], None] = lambda _seconds: None) -> Store:
        return Store(disk, pause, said.append)

    return start
