"""The sandbox's machines as processes. They are known by a mark in their environment, never by a remembered pid.

Each machine is an `unshare` process that carries the mark and holds a PID namespace: when it is killed, the kernel ends
everything inside. Pids here are those of the host.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

DIRECTORY_MARK = "SLURMINFER_SANDBOX"
MACHINE_MARK = "SLURMINFER_SANDBOX_MACHINE"
_NAMESPACES = ("--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


def start_machine(directory: Path, name: str, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
    """Run `command` as PID 1 of a machine of its own, which `machines` knows from then on. Output goes to `log`."""
    marks = {DIRECTORY_MARK: str(directory), MACHINE_MARK: name}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    argv = ["unshare", *_NAMESPACES, *command]
    pid = os.posix_spawnp("unshare", argv, {**env, **marks}, file_actions=files, setsid=True)
    while is_alive(pid) and name not in machines(directory):  # the kernel shows a new environment a moment later
        time.sleep(0.001)


def machines(directory: Path) -> dict[str, int]:
    """The living machines of the sandbox in `directory`: name to pid."""
    found = {}
    for pid in _pids():
        environ = _environ(pid)
        if environ.get(DIRECTORY_MARK) == str(directory) and _command(pid) == "unshare":
            found[environ.get(MACHINE_MARK, "")] = pid
    return found


def inside(machine: int) -> dict[int, str]:
    """The living processes inside a machine: pid to command name."""
    namespace = _link(Path(f"/proc/{machine}/ns/pid_for_children"))
    if namespace in ("", _link(Path("/proc/self/ns/pid"))):  # gone, or so young that it is still in ours
        return {}
    pids = [pid for pid in _pids() if _link(Path(f"/proc/{pid}/ns/pid")) == namespace]
    return {pid: _command(pid) for pid in pids if is_alive(pid)}


def signal_first(machine: int, number: signal.Signals) -> None:
    """Send a signal to the machine's PID 1."""
    for pid in inside(machine):
        if _inner_pid(pid) == 1:
            _signal(pid, number)


def kill(machine: int) -> None:
    """Cut the machine's power, and wait until nothing of it is left."""
    victims = [machine, *inside(machine)]
    _signal(machine, signal.SIGKILL)
    _wait(victims, timeout_s=10.0)


def shut_down(machine: int) -> None:
    """Let the machine end its services by itself, then make sure that it is gone."""
    signal_first(machine, signal.SIGTERM)
    _wait([machine], timeout_s=30.0)
    kill(machine)


def is_alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not; if it is our own child, it is collected."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return _status(pid).get("State", "X")[0] not in "ZX"


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(pids: Sequence[int], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def _inner_pid(pid: int) -> int:
    """The pid that the process has inside its own namespace."""
    return int(_status(pid).get("NSpid", "0").split()[-1])


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _pids() -> Iterator[int]:
    return iter(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))


def _environ(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    entries = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in entries}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
