"""An interpreter whose environment has a fake sglang-router."""

import shutil
import sys
from pathlib import Path

import pytest

from slurminfer.router.sglang.installed import VERSION

FAKE = Path(__file__).with_name("fake_sglang_router.py")


def environment(folder: Path, version: str) -> Path:
    """An interpreter that finds sglang-router in that version: a fake."""
    package, info = folder / "sglang_router", folder / f"sglang_router-{version}.dist-info"
    for made in (package, info):
        made.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(FAKE, package / "launch_router.py")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sglang-router\nVersion: {version}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(environment(tmp_path_factory.mktemp("fake"), VERSION))
