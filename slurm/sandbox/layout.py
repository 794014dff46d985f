"""Where one sandbox keeps its files, and which addresses and ports it uses. Pure, but for the search for free ports."""

import socket
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...core.errors import SlurmError

MAX_NODES = 48
HEAD = "head"
_PORTS_PER_SLOT = 64
_FIRST_PORT = 20_000  # below the range that the kernel hands out by itself
_SLOTS = 180
_PRETENDED_GPUS = 8  # of each node


class SandboxLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Files, addresses and ports of one sandbox. Those with different slots share no port and no address."""

    directory: str
    nodes: int
    slot: int
    gpus: Sequence[str] = ()  # this machine's, which the nodes share out; none: every node pretends to have some

    @property
    def etc(self) -> Path:
        """Slurm's configuration files."""
        return Path(self.directory, "etc")

    @property
    def run(self) -> Path:
        """Sockets and pid files of the services."""
        return Path(self.directory, "run")

    @property
    def log(self) -> Path:
        """Logs of the services."""
        return Path(self.directory, "log")

    @property
    def database(self) -> Path:
        """The files of the accounting database."""
        return Path(self.directory, "db")

    @property
    def tmp(self) -> Path:
        """Where the database keeps its temporary files."""
        return Path(self.directory, "tmp")

    @property
    def slurm_conf(self) -> Path:
        """slurm.conf, for SLURM_CONF."""
        return self.etc / "slurm.conf"

    @property
    def enter_script(self) -> Path:
        """The script that runs a command inside of the sandbox."""
        return self.etc / "enter.sh"

    @property
    def file(self) -> Path:
        """Where the layout itself is kept."""
        return self.etc / "layout.json"

    @property
    def stash(self) -> Path:
        """An empty directory to hold mounts for a moment."""
        return Path(self.directory, "stash")

    @property
    def munge_key(self) -> Path:
        """The secret key of the sandbox's munge daemon."""
        return self.etc / "munge.key"

    @property
    def munge_socket(self) -> Path:
        """The socket of the munge daemon, which all machines of the sandbox use."""
        return self.run / "munge.sock"

    @property
    def database_socket(self) -> Path:
        """The socket of the accounting database."""
        return self.run / "db.sock"

    @property
    def controller_port(self) -> int:
        """TCP port of slurmctld."""
        return _FIRST_PORT + self.slot * _PORTS_PER_SLOT

    @property
    def accounting_port(self) -> int:
        """TCP port of slurmdbd."""
        return self.controller_port + 1

    @property
    def head_address(self) -> str:
        """Loopback address of the machine with slurmctld and slurmdbd."""
        return f"127.77.{self.slot}.1"

    @property
    def node_names(self) -> list[str]:
        """The nodes' names in Slurm: n1, n2 and so on."""
        return [f"n{index}" for index in range(1, self.nodes + 1)]

    def node_address(self, name: str) -> str:
        """Loopback address of a node, such as n1."""
        return f"127.77.{self.slot}.{10 + int(name[1:])}"

    def node_port(self, name: str) -> int:
        """TCP port of a node's slurmd."""
        return self.controller_port + 1 + int(name[1:])

    def gpu_type(self, name: str) -> str:
        """The type of a node's pretended GPUs: H100 in the first half of the nodes, A100 in the second."""
        return "h100" if int(name[1:]) <= (self.nodes + 1) // 2 else "a100"

    def gpu_files(self, name: str) -> list[str]:
        """The device files of a node's GPUs."""
        if not self.gpus:
            return self.pretended_gpus
        index, count = int(name[1:]) - 1, len(self.gpus)
        return list(self.gpus[index * count // self.nodes : (index + 1) * count // self.nodes])

    @property
    def pretended_gpus(self) -> list[str]:
        """The device files that each node shows as its GPUs where the machine's own are not shared out."""
        return [f"{self.directory}/dev/gpu{index}" for index in range(_PRETENDED_GPUS)]

    def ports(self) -> range:
        """All TCP ports of the sandbox: those of slurmctld, slurmdbd and each slurmd."""
        return range(self.controller_port, self.controller_port + 2 + self.nodes)


def free_layout(directory: Path, nodes: int, gpus: Sequence[str] = ()) -> SandboxLayout:
    """A layout whose ports are free now; the same directory gets the same ones as long as nobody else has them.

    Raises SlurmError where there are none.
    """
    first = zlib.crc32(str(directory).encode()) % _SLOTS
    for step in range(_SLOTS):
        layout = SandboxLayout(directory=str(directory), nodes=nodes, slot=(first + step) % _SLOTS, gpus=gpus)
        if all(_is_free(port) for port in layout.ports()):
            return layout
    raise SlurmError(f"the sandbox finds no {nodes + 2} free ports in a row above {_FIRST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
