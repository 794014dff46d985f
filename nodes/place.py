"""Where a process finds itself: which job, which rank, on which node, until when."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..core.address import node_address


@dataclass(frozen=True, kw_only=True)
class Place:
    """One task of a worker's job. Times are Unix seconds."""

    job: str
    epoch: int  # how often Slurm has requeued the job
    rank: int  # 0 is the head: it registers, the others follow
    host: str
    address: str  # IPv4 at which the other nodes reach this one
    local: bool
    ends_at: float | None

    @classmethod
    def here(cls, time_s: int, environ: Mapping[str, str] = os.environ) -> "Place":
        """The place of this process; `time_s` is the walltime that was asked for."""
        host = socket.gethostname()
        if environ.get("SLURMINFER_LOCAL") == "1":
            return cls(
                job=str(os.getpid()), epoch=0, rank=0, host=host, address=node_address(), local=True, ends_at=None
            )
        return cls(
            job=environ["SLURM_JOB_ID"],
            epoch=int(environ.get("SLURM_RESTART_COUNT", "0")),
            rank=int(environ.get("SLURM_PROCID", "0")),
            host=host,
            address=node_address(),
            local=False,
            ends_at=_end_time(time_s, environ),
        )


def free_port(address: str) -> int:
    """A port of `address` that nobody listens on at this moment; the caller retries if it loses the race."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def is_port_free(address: str, port: int) -> bool:
    """Whether `port` could be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _end_time(time_s: int, environ: Mapping[str, str]) -> float:
    # Slurm exports the end time only since 23.02; before, the walltime asked for is the best that a task knows.
    said = environ.get("SLURM_JOB_END_TIME", "")
    return float(said) if said.isdigit() else time.time() + time_s
