"""The one table of Slurm's job states (squeue(1), sacct(1), "JOB STATE CODES", up to Slurm 25.05)."""

from ..core.job import JobPhase

PHASES: dict[str, JobPhase] = {
    # Waits, or will wait again: the job id lives on.
    "PENDING": JobPhase.PENDING,
    "CONFIGURING": JobPhase.PENDING,  # has nodes that still boot
    "EXPEDITING": JobPhase.PENDING,
    "POWER_UP_NODE": JobPhase.PENDING,
    "REQUEUED": JobPhase.PENDING,
    "REQUEUE_FED": JobPhase.PENDING,
    "REQUEUE_HOLD": JobPhase.PENDING,
    "RESV_DEL_HOLD": JobPhase.PENDING,
    "SPECIAL_EXIT": JobPhase.PENDING,  # requeued and held
    # Holds its nodes.
    "RUNNING": JobPhase.RUNNING,
    "COMPLETING": JobPhase.RUNNING,  # processes or epilog still end; the last word is not spoken
    "RESIZING": JobPhase.RUNNING,
    "SIGNALING": JobPhase.RUNNING,
    "STAGE_OUT": JobPhase.RUNNING,
    "STOPPED": JobPhase.RUNNING,
    "SUSPENDED": JobPhase.RUNNING,
    "UPDATE_DB": JobPhase.RUNNING,
    # Over.
    "COMPLETED": JobPhase.DONE,
    "BOOT_FAIL": JobPhase.FAILED,
    "CANCELLED": JobPhase.FAILED,
    "DEADLINE": JobPhase.FAILED,
    "FAILED": JobPhase.FAILED,
    "LAUNCH_FAILED": JobPhase.FAILED,
    "NODE_FAIL": JobPhase.FAILED,
    "OUT_OF_MEMORY": JobPhase.FAILED,
    "PREEMPTED": JobPhase.FAILED,
    "RECONFIG_FAIL": JobPhase.FAILED,
    "REVOKED": JobPhase.FAILED,  # another cluster of the federation runs it
    "TIMEOUT": JobPhase.FAILED,
}


def state_word(text: str) -> str:
    """Slurm's state without what it adds to it: "CANCELLED by 0" and "CANCELLED+" are CANCELLED."""
    return text.split(maxsplit=1)[0].rstrip("+*") if text.strip() else ""


def phase_of(text: str) -> JobPhase:
    """What a state as Slurm prints it means; a word that is not in the table is UNKNOWN."""
    return PHASES.get(state_word(text), JobPhase.UNKNOWN)
