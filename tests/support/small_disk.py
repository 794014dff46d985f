"""A filesystem that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(folder: Path, size: str, mode: str = "755") -> Iterator[Path]:
    """A tmpfs of that size on a folder; the test is skipped where none can be mounted.

    It is an error if anything in it is still open at the end.

    Args:
        size: as mount takes it, such as 96k.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs, which needs root: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
