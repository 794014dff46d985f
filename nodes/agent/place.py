"""Where a process finds itself: which job, which rank, on which node, until when."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ...core.address import interface_of, node_address


@dataclass(frozen=True, kw_only=True)
class Place:
    """One task of a worker's job. Times are Unix seconds."""

    job: str
    epoch: int  # how often Slurm has requeued the job
    node_rank: int  # 0 is the head: it registers, the others follow
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
                job=str(os.getpid()), epoch=0, node_rank=0, host=host, address=node_address(), local=True, ends_at=None
            )
        return cls(
            job=environ["SLURM_JOB_ID"],
            epoch=int(environ.get("SLURM_RESTART_COUNT", "0")),
            node_rank=int(environ.get("SLURM_PROCID", "0")),
            host=host,
            address=node_address(),
            local=False,
            ends_at=_end_time(time_s, environ),
        )


def hold_port(address: str) -> socket.socket:
    """A socket that is bound to a free port of `address`, and never listens: the port is `getsockname()[1]`.

    While it is open, the kernel gives the port to no one else who asks for any, such as the other jobs of the node. An
    engine that asks for just this one gets it, if it sets SO_REUSEADDR as servers do. So does anybody else who asks for
    it: whoever listens first has it, and the caller tries another.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    return held


def is_port_free(address: str, port: int) -> bool:
    """Whether nobody listens on `port` now; whoever only holds it does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def interface_env(address: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What keeps NCCL and Gloo to the network of `address`; by themselves they may choose another, or loopback.

    What the user has set stays.
    """
    interface = interface_of(address)
    if interface is None:
        return {}
    wanted = {"NCCL_SOCKET_IFNAME": f"={interface}", "GLOO_SOCKET_IFNAME": interface}  # NCCL: without =, a prefix
    return {name: value for name, value in wanted.items() if name not in environ}


def _end_time(time_s: int, environ: Mapping[str, str]) -> float:
    # Slurm exports the end time only since 23.02; before, the walltime asked for is the best that a task knows.
    said = environ.get("SLURM_JOB_END_TIME", "")
    return float(said) if said.isdigit() else time.time() + time_s
