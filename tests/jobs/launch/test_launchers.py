"""Which launcher a command gets."""

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.jobs.launch.launchers import launcher_here


def test_without_slurm_local_processes_are_offered(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"no Slurm here: sbatch is not on PATH; to start .* add --local"):
        launcher_here(local=False)
    assert launcher_here(local=False, submits=False).name == "slurm", "what would be submitted can be shown anywhere"
    assert launcher_here(local=True).name == "local"
