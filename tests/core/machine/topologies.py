"""Tables as `nvidia-smi topo -m` prints them, of several generations of machines and drivers."""

from collections.abc import Callable, Sequence

LEGEND = """
Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def table(gpus: int, word: Callable[[int, int], str], tail: Callable[[int], Sequence[str]], columns: str) -> str:
    """A table of so many GPUs.

    Args:
        word: how two of them are connected.
        tail: what stands behind the links of each.
        columns: the header of that.
    """
    names = [f"GPU{number}" for number in range(gpus)]
    rows = [
        "\t".join([f"GPU{row}", *(" X " if row == other else word(row, other) for other in range(gpus)), *tail(row)])
        for row in range(gpus)
    ]
    return "\n".join(["\t" + "\t".join([*names, *columns.split("|")]), *rows, LEGEND])


def _hgx(_one: int, _other: int) -> str:
    return "NV18"


_NEW = "CPU Affinity|NUMA Affinity|GPU NUMA ID"
# Eight GPUs behind NVSwitches, with network cards between the links and the affinities.
_HALVES = ("0-47,96-143", "48-95,144-191")
HGX_H100 = (
    table(8, _hgx, lambda row: ["PIX", "SYS", _HALVES[row // 4], str(row // 4), "N/A"], "NIC0|NIC1|" + _NEW)
    + "NIC0\tPIX\tSYS\tSYS\tSYS\tSYS\tSYS\tSYS\tSYS\t X \tSYS\n"
)

# Eight V100 in a hybrid cube mesh, with an old driver: no column for the NUMA node.
_MESH = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 1, (2, 6): 2, (3, 7): 2,
    (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 1,
}  # fmt: skip


def _mesh(one: int, other: int) -> str:
    lanes = _MESH.get((min(one, other), max(one, other)))
    return f"NV{lanes}" if lanes else "SYS"


DGX1_V100 = table(8, _mesh, lambda row: ["0-19,40-59" if row < 4 else "20-39,60-79"], "CPU Affinity")


def _bridged(pairs: Sequence[set[int]]) -> Callable[[int, int], str]:
    def word(one: int, other: int) -> str:
        if {one, other} in pairs:
            return "NV12"
        return "NODE" if one // 2 == other // 2 else "SYS"

    return word


# Four A100 on PCIe with bridges between two of them each; the bridges of the second machine lie across its sockets.
_SOCKETS = ("0-31", "32-63")
A100_BRIDGES = table(
    4, _bridged([{0, 1}, {2, 3}]), lambda row: [_SOCKETS[row // 2], str(row // 2)], "CPU Affinity|NUMA Affinity"
)
A100_BRIDGES_ACROSS = table(
    4, _bridged([{0, 3}, {1, 2}]), lambda row: [_SOCKETS[row // 2], str(row // 2)], "CPU Affinity|NUMA Affinity"
)
# Four L40S without NVLink, two on each socket, alternately.
L40S = table(
    4, lambda one, other: "NODE" if one % 2 == other % 2 else "SYS", lambda row: [_SOCKETS[row % 2], "0", "N/A"], _NEW
)
# What a job with two GPUs sees of a larger machine: they are numbered anew. The driver underlines the header.
TWO_OF_A_JOB = "\x1b[4m" + table(2, _hgx, lambda _row: ["8-15", "0", "N/A"], _NEW).replace("ID", "ID\x1b[0m", 1)
ONE = table(1, _hgx, lambda _row: ["0-71", "0", "1"], _NEW)
# In a container without sysfs nothing is known of CPUs.
NO_CPUS = table(2, lambda _one, _other: "PHB", lambda _row: ["N/A", "N/A", "N/A"], _NEW)
