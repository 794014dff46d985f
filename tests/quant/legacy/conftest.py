"""The legacy environment's interpreter, which `make legacy` builds; tests that need it are opt-in."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slurminfer.core.errors import ModelError
from slurminfer.quant.legacy.autoawq import interpreter

SOURCES = Path(__file__).parents[3] / "src"


@pytest.fixture(scope="session")
def python() -> Path:
    if os.environ.get("SLURMINFER_TEST_DOWNLOADS") != "1":
        pytest.skip("make legacy is a large download: SLURMINFER_TEST_DOWNLOADS=1 says that it was made")
    try:
        return interpreter()
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def run_legacy(python: Path) -> Callable[..., str]:
    """Runs Python code with arguments in the legacy environment, with slurminfer importable; returns its output."""

    def run(code: str, *arguments: object) -> str:
        env = {**os.environ, "PYTHONPATH": str(SOURCES)}
        argv = [str(python), "-c", code, *map(str, arguments)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
