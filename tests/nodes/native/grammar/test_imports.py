"""What starts without the library that compiles grammars."""

import subprocess
import sys

import pytest


@pytest.mark.process
def test_the_server_starts_without_the_library_and_without_torch():
    code = "import sys, slurminfer.nodes.native.api.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert "slurminfer.nodes.native.grammar.compiler" in loaded.split()
    assert {"llguidance", "torch"} & set(loaded.split()) == set()
