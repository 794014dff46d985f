"""One task of a doctor's job: look at the node, try to reach the others, and be reached."""

from collections.abc import Callable
from pathlib import Path

from ...core.errors import RunDirectoryError
from ...core.files import read_private
from ...core.site.doctor import NodeReport, Route
from ...core.site.machine import Machine, Network
from . import meeting, network
from .beacon import Beacon, proof_of
from .look import look

_PEERS_S = 90.0  # Python may take its time on a cold node, and NFS shows a new file up to a minute late
_COMMAND_S = 90.0

Submission = tuple[bool | None, str]  # whether jobs may be submitted from here, and Slurm's words where not


def run(
    folder: Path, rank: int, tasks: int, submission: Callable[[], Submission], see: Callable[[], Machine] = look
) -> None:
    """Leave a report in the folder, and stay until the command has tried to reach this node.

    Raises RunDirectoryError where the folder is not that of the command.
    """
    secret = read_private(folder / meeting.SECRET)
    if secret is None:
        raise RunDirectoryError(f"this node does not see what {folder} has elsewhere")
    own = network.network()
    with Beacon(proof_of(secret, rank)) as beacon:
        here = meeting.Listening(host=own.host, port=beacon.port, targets=network.targets(own))
        meeting.write(meeting.listen_file(folder, rank), here)
        may_submit, answer = submission()
        node = NodeReport(machine=see(), may_submit=may_submit, submit_answer=answer)
        routes = [route for peer in range(tasks) if peer != rank for route in _routes(folder, own, peer, secret)]
        meeting.write(meeting.report_file(folder, rank), meeting.TaskReport(node=node, routes=tuple(routes)))
        meeting.wait_until((folder / meeting.DONE).exists, _COMMAND_S)


def _routes(folder: Path, own: Network, peer: int, secret: str) -> list[Route]:
    """The ways from here to another task; none where it does not come."""
    if not meeting.wait_until(meeting.listen_file(folder, peer).exists, _PEERS_S):
        return []
    target = meeting.read_listening(folder, peer)
    return [route for route, _ in meeting.reach(own.host, own, target, peer, secret)] if target else []
