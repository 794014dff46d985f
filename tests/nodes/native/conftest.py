"""What tests of the model and of parallel layouts share."""

import os

import pytest


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Triton interprets kernels, 20 ms for each program, the keys are cut into few splits, not as for a GPU."""
    if "TRITON_INTERPRET" in os.environ:
        from slurminfer.nodes.native.model.cuda import attention

        monkeypatch.setattr(attention, "_PROGRAMS", 16)
