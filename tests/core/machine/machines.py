"""Trees as the kernel shows machines under /sys/devices/system and /proc/self/status, of machines that are sold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

GIB = 1 << 20  # in kB, as of meminfo


def write_machine(
    root: Path,
    nodes: Mapping[int, str],
    *,
    siblings: Sequence[int] = (),
    memory: Mapping[int, int] | None = None,
    distances: Mapping[int, str] | None = None,
) -> Path:
    """A machine's folder.

    Args:
        nodes: by number the CPUs of each of the kernel's nodes, as a list like "0-31,64-95"; "" for memory alone.
        siblings: distances from a core's first hardware thread to its further ones, such as [64].
        memory: GiB of each node; 64 where nothing is said.
        distances: of nodes to all nodes, as the kernel writes them.
    """
    for number, cpus in nodes.items():
        folder = root / f"node/node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(cpus + "\n")
        total = (memory or {}).get(number, 64) * GIB
        (folder / "meminfo").write_text(f"Node {number} MemTotal:       {total} kB\nNode {number} MemFree:  1 kB\n")
        if distances and number in distances:
            (folder / "distance").write_text(distances[number] + "\n")
    threads = 1 + len(siblings)
    if siblings:
        first_threads = siblings[0]
        for cpu in range(first_threads * threads):
            first = cpu % first_threads
            folder = root / f"cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            named = [first, *(first + further for further in siblings)]
            (folder / "thread_siblings_list").write_text(",".join(map(str, named)) + "\n")
    return root


def two_sockets(root: Path) -> Path:
    """Two sockets of 32 cores with two hardware threads each, numbered as Linux does on x86."""
    return write_machine(root, {0: "0-31,64-95", 1: "32-63,96-127"}, siblings=[64])


def snc4(root: Path) -> Path:
    """Two sockets in sub-NUMA clustering mode 4, 8 cores a cluster, the HBM of each a node of its own."""
    nodes = {index: f"{8 * index}-{8 * index + 7},{64 + 8 * index}-{64 + 8 * index + 7}" for index in range(8)}
    return write_machine(root, nodes | {index: "" for index in range(8, 16)}, siblings=[64])


def nps4(root: Path) -> Path:
    """One AMD socket with four nodes per socket, one thread a core, CPUs interleaved by no one."""
    return write_machine(root, {0: "0-23", 1: "24-47", 2: "48-71", 3: "72-95"}, siblings=[])


def granite_rapids(root: Path) -> Path:
    """One socket of three clusters with 43, 43 and 42 cores."""
    return write_machine(root, {0: "0-42", 1: "43-85", 2: "86-127"})


def memoryless(root: Path) -> Path:
    """Four nodes with CPUs of which two have no memory (one DIMM a pair), so that they use their neighbours'."""
    return write_machine(
        root,
        {0: "0-7", 1: "8-15", 2: "16-23", 3: "24-31"},
        memory={1: 0, 3: 0},
        distances={0: "10 12 32 32", 1: "12 10 32 32", 2: "32 32 10 12", 3: "32 32 12 10"},
    )


def write_status(path: Path, memory: str) -> Path:
    """The process's part of /proc: from which nodes it may take memory."""
    path.write_text(f"Name:\tpython\nMems_allowed:\t3\nMems_allowed_list:\t{memory}\n", encoding="utf-8")
    return path
