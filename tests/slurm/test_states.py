"""The table of Slurm's states."""

import pytest

from slurminfer.core.job import JobPhase
from slurminfer.slurm.states import PHASES, phase_of, state_word


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("PENDING", JobPhase.PENDING),
        ("CONFIGURING", JobPhase.PENDING),
        ("REQUEUED", JobPhase.PENDING),
        ("REQUEUE_HOLD", JobPhase.PENDING),
        ("SPECIAL_EXIT", JobPhase.PENDING),
        ("RUNNING", JobPhase.RUNNING),
        ("COMPLETING", JobPhase.RUNNING),
        ("SUSPENDED", JobPhase.RUNNING),
        ("STOPPED", JobPhase.RUNNING),
        ("COMPLETED", JobPhase.DONE),
        ("CANCELLED by 0", JobPhase.FAILED),
        ("CANCELLED by 1001", JobPhase.FAILED),
        ("CANCELLED+", JobPhase.FAILED),
        ("PREEMPTED", JobPhase.FAILED),
        ("NODE_FAIL", JobPhase.FAILED),
        ("OUT_OF_MEMORY", JobPhase.FAILED),
        ("BOOT_FAIL", JobPhase.FAILED),
        ("DEADLINE", JobPhase.FAILED),
        ("TIMEOUT", JobPhase.FAILED),
        ("", JobPhase.UNKNOWN),
        ("A_STATE_OF_SLURM_99", JobPhase.UNKNOWN),
    ],
)
def test_state_as_slurm_prints_it_has_its_phase(text, phase):
    assert phase_of(text) is phase


def test_state_word_drops_what_slurm_adds():
    assert [state_word(text) for text in ("CANCELLED by 0", "RUNNING", "CANCELLED+", " ")] == [
        "CANCELLED",
        "RUNNING",
        "CANCELLED",
        "",
    ]


def test_no_state_of_the_table_is_unknown():
    assert JobPhase.UNKNOWN not in PHASES.values()
