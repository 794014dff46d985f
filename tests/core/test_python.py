"""Command lines of Python programs that ignore the current folder."""

import os
import subprocess
import sys

import pytest

from slurminfer.core.processes.python import SAFE_PATH_ENV, module_argv

PLANTED = "import sys; sys.exit('a stranger was here')"


@pytest.mark.process
def test_a_module_in_the_current_folder_is_not_run(tmp_path):
    (tmp_path / "json.py").write_text(PLANTED)
    plain = [sys.executable, "-m", "json.tool", "--help"]
    given = {name: value for name, value in os.environ.items() if name not in SAFE_PATH_ENV}

    def fails(argv: list[str], env: dict[str, str]) -> bool:
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True).returncode != 0

    assert fails(plain, given), "the test has no teeth"
    assert not fails(module_argv("json.tool", "--help"), given)
    assert not fails(plain, {**given, **SAFE_PATH_ENV})
