"""What is set before PyTorch is imported, and what is found loaded afterwards."""

import subprocess
import sys

import pytest

from slurminfer.core.machine.libraries import loaded, prepare


@pytest.mark.parametrize(
    ("given", "spin"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_what_the_user_has_set_stays(given, spin):
    environ = {"THP_MEM_ALLOC_ENABLE": "0", **given}
    prepare(environ)
    assert environ.get("GOMP_SPINCOUNT") == spin
    assert environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_openmp_reads_it_where_it_is_set_in_the_process_itself():
    program = (
        "import os; os.environ['OMP_DISPLAY_ENV'] = 'verbose';"
        "from slurminfer.core.machine.libraries import prepare; prepare(); import torch"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    assert "GOMP_SPINCOUNT = '2000'" in said


def test_loaded_libraries_are_found_by_the_beginning_of_their_names():
    assert any("libc" in path for path in loaded(["libc.so", "libc-"]))
    assert loaded(["libnothing-of-that-name"]) == []
