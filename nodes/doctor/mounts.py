"""Which filesystem a path is on (proc_pid_mountinfo(5))."""

import re
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_MEMORY = frozenset({"tmpfs", "ramfs"})
_SHARED = re.compile(
    r"(nfs|lustre|gpfs|beegfs|ceph|cifs|smb|afs|glusterfs|orangefs|pvfs|panfs|wekafs|fuse\.(sshfs|glusterfs|ceph|juicefs)"
    r"|9p|virtiofs|daos|quobyte|vastnfs|ocfs2|gfs2)"
)
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """A filesystem where it is mounted."""

    point: str
    kind: str
    source: str = ""
    may_execute: bool = True
    root: str = "/"  # which folder of the filesystem is mounted

    @property
    def is_shared(self) -> bool:
        """Whether its kind is one that several machines see."""
        return _SHARED.match(self.kind) is not None

    @property
    def is_memory(self) -> bool:
        """Whether its files are in main memory, and count as such."""
        return self.kind in _MEMORY


def mount_of(path: Path, mounts: Path = _MOUNTS) -> Mount:
    """The mount that has the path."""
    real = path.resolve()
    lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    having = [one for one in map(_mount, lines) if real.is_relative_to(one.point)]
    # Of two at the same place the later one covers the other.
    return max(enumerate(having), key=lambda found: (len(found[1].point), found[0]))[1] if having else Mount("/", "")


def _mount(line: str) -> Mount:
    """A line: id, parent, device, root, mount point, options, optional fields, -, type, source, options."""
    before, _, after = line.partition(" - ")
    fields, (kind, source, *_) = before.split(), after.split()
    point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
    may_execute = "noexec" not in fields[5].split(",")
    return Mount(point=point, kind=kind, source=source, may_execute=may_execute, root=fields[3])
