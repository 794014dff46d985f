"""A real Slurm of several nodes on one Debian machine, in one directory, beside any other Slurm.

Every machine, be it a compute node or the head node with munge, database, slurmdbd and slurmctld, has its own hostname,
address, /etc/hosts and processes. Partitions: `cpu` (default), `gpu`, and `low`, which gives way to `high`.
"""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import CommandError, SlurmError
from ...core.processes import process
from . import config, expose, machine, processes, system
from .layout import HEAD, MAX_NODES, SandboxLayout, free_layout
from .prepare import make_database, prepare, read_layout

DEFAULT_DIRECTORY = Path("/var/tmp/slurminfer-sandbox")
_START_TIMEOUT_S = 60.0
_ACCOUNT = "tests"
_MAX_DIRECTORY = 80  # a Unix socket's path has at most 107 bytes
_CHECKOUT = Path(__file__).resolve().parents[2]


class SandboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a sandbox. `daemons` and `nodes` name all that should be there."""

    directory: str
    state: Literal["running", "stopped", "damaged"]
    daemons: dict[str, bool]  # whether it runs
    nodes: dict[str, str]  # Slurm's word for the state; "off" and "no slurmd" before Slurm has noticed
    jobs: int


class Sandbox:
    """One sandbox, known by its directory; any process of root can look at it, use it and stop it.

    Args:
        directory: holds all of its files. Every directory above must be open to ordinary users.
        nodes: how many compute nodes `start` brings up.
        real_gpus: share out this machine's GPUs among the nodes, in place of eight that each pretends to have.
        expose: further paths that jobs and `run_as` must reach although they lie below closed directories.
        private: paths that root's own jobs must reach in the same way.
    """

    def __init__(
        self,
        directory: Path = DEFAULT_DIRECTORY,
        nodes: int = 4,
        expose: Sequence[Path] = (),
        real_gpus: bool = False,
        private: Sequence[Path] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.nodes, self.real_gpus = nodes, real_gpus
        self.expose = [Path(sys.base_prefix), Path(sys.executable), Path(sys.prefix), _CHECKOUT, *expose]
        self.private = list(private)

    def start(self) -> None:
        """Bring it up and wait until all nodes can take jobs. Raises SlurmError, also if it runs already."""
        system.require_root()
        system.require_packages()
        self._check()
        gpus = system.gpus() if self.real_gpus else ()
        with self._locked():
            if self.status().state == "running":
                raise SlurmError(f"a sandbox runs in {self.directory} already")
            self._sweep()
            covers = expose.plan(self.expose, self.private)
            make_database(self.directory)
            try:
                with system.machine_lock():
                    self._bring_up(free_layout(self.directory, self.nodes, gpus), covers)
                self._add_account()
            except BaseException:
                self._sweep()
                raise

    def stop(self) -> None:
        """End everything that belongs to it; its accounting and job ids are kept. Nothing to stop is no error."""
        system.require_root()
        if not self.directory.exists():
            return
        with self._locked():
            if HEAD in processes.machines(self.directory) and self._succeeds("scontrol", "ping"):
                self._cancel_all()
            self._sweep()

    def status(self) -> SandboxStatus:
        """What is true now. Raises SlurmError for ordinary users, who cannot see."""
        system.require_root()
        layout = read_layout(self.directory)
        if layout is None:
            return SandboxStatus(directory=str(self.directory), state="stopped", daemons={}, nodes={}, jobs=0)
        machines = processes.machines(self.directory)
        running = {name: set(processes.inside(pid).values()) for name, pid in machines.items()}
        daemons = {daemon: daemon in running.get(HEAD, ()) for daemon in config.HEAD_DAEMONS}
        answers = daemons["slurmctld"] and self._succeeds("scontrol", "ping")
        words = self._node_words() if answers else {}
        nodes = {name: _node_word(running.get(name), words.get(name)) for name in layout.node_names}
        whole = answers and all(daemons.values()) and all("slurmd" in running.get(name, ()) for name in nodes)
        return SandboxStatus(
            directory=str(self.directory),
            state="running" if whole else "damaged" if running else "stopped",
            daemons=daemons,
            nodes=nodes,
            jobs=len(self._ask("squeue", "-h", "-o", "%A").split()) if answers else 0,
        )

    def env(self) -> dict[str, str]:
        """What a process on this machine needs in its environment to use this Slurm."""
        return {"SLURM_CONF": str(self.directory / "etc/slurm.conf")}

    def node_kill(self, name: str) -> None:
        """Kill the node's slurmd alone; the tasks of its jobs keep running, as on a real node."""
        for pid, command in processes.inside(self._machine(name)).items():
            if command == "slurmd":
                os.kill(pid, signal.SIGKILL)

    def node_off(self, name: str) -> None:
        """Cut the node's power: every process on it is gone. Slurm finds out by itself, within half a minute."""
        processes.kill(self._machine(name))

    def node_up(self, name: str) -> None:
        """Start the node, or its killed slurmd, and wait until Slurm uses it again."""
        layout = self._layout()
        running = processes.machines(self.directory)
        if name in running:
            processes.signal_first(running[name], signal.SIGHUP)
        else:
            self._start_node(layout, name)
        _wait(lambda: self._in_service([name]), f"node {name} did not come back: see {layout.log}")

    def argv_as(self, user: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `argv` as `user` on the head node: its hostname, names and exposed paths.

        The user gets a clean environment with SLURM_CONF, this Python's folder first on PATH, and `env`. Every step
        replaces the process by the next, so that its pid and signals are those of `argv`.
        """
        account = pwd.getpwnam(user)
        own = {"HOME": account.pw_dir, "USER": user, "LOGNAME": user, "SHELL": account.pw_shell, "LANG": "C.UTF-8"}
        path = f"{Path(sys.executable).parent}:{system.PATH}"
        values = {**own, "PATH": path, **self.env(), **(env or {})}
        become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
        clean = ["env", "-i", f"--chdir={account.pw_dir}", *(f"{key}={value}" for key, value in values.items())]
        enter = ["unshare", "--mount", "--uts", "sh", str(self._layout().enter_script), HEAD]
        return [*enter, *become, *clean, *argv]

    def run_as(
        self, user: str, argv: Sequence[str], env: Mapping[str, str] | None = None, *, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` as `user` to its end, whatever its exit code. Raises subprocess.TimeoutExpired."""
        command = self.argv_as(user, argv, env)
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def ensure_user(self, name: str) -> pwd.struct_passwd:
        """The system user `name`, made if there is none, with an account in Slurm's accounting."""
        account = system.create_user(name)
        known = self._ask("sacctmgr", "-n", "show", "user", name, "format=user")
        if not known.strip():
            self._ask("sacctmgr", "-i", "add", "user", name, f"account={_ACCOUNT}")
        return account

    def give(self, name: str, folder: Path) -> None:
        """Make a folder, and all that is in it, the user's own."""
        account = self.ensure_user(name)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)

    def _bring_up(self, layout: SandboxLayout, covers: Sequence[expose.Cover]) -> None:
        prepare(layout, covers)
        self._start_machine(layout, HEAD, config.head_services(layout))
        _wait(lambda: self._answers(layout), f"the head node did not start: see {layout.log}")
        for name in layout.node_names:
            self._start_node(layout, name)
        _wait(lambda: self._in_service(layout.node_names), f"not all nodes came up: see {layout.log}")

    def _add_account(self) -> None:
        """The account that users of the sandbox have, with root as its first."""
        if not self._ask("sacctmgr", "-n", "show", "account", _ACCOUNT).strip():
            self._ask("sacctmgr", "-i", "add", "account", _ACCOUNT)
            self._ask("sacctmgr", "-i", "add", "user", "root", f"account={_ACCOUNT}")

    def _start_node(self, layout: SandboxLayout, name: str) -> None:
        self._start_machine(layout, name, config.node_services(name))

    def _start_machine(self, layout: SandboxLayout, name: str, services: list[config.Service]) -> None:
        init = [sys.executable, "-I", "-S", machine.__file__, msgspec.json.encode(services).decode()]
        command = ["sh", str(layout.enter_script), name, *init]
        env = {"PATH": system.PATH, "MYSQL_UNIX_PORT": str(layout.database_socket), **self.env()}
        processes.start_machine(self.directory, name, command, env, layout.log / f"machine-{name}.log")

    def _answers(self, layout: SandboxLayout) -> bool:
        if HEAD not in processes.machines(self.directory):
            said = (layout.log / f"machine-{HEAD}.log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()
            raise SlurmError(f"the head node did not start: {said or 'see ' + str(layout.log)}")
        return self._succeeds("scontrol", "ping")

    def _in_service(self, names: Sequence[str]) -> bool:
        """Whether Slurm uses these nodes; those that it holds back for what happened before are given free."""
        words = self._node_words()
        held = [name for name in names if words[name].startswith(("down", "drain")) and not words[name].endswith("*")]
        if held:
            self._succeeds("scontrol", "update", f"nodename={','.join(held)}", "state=resume")
        return all(words[name] in {"idle", "mixed", "allocated"} for name in names)

    def _node_words(self) -> dict[str, str]:
        lines = self._ask("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %T").splitlines()
        return {name: word for name, word in (line.split() for line in lines)}

    def _cancel_all(self) -> None:
        ids = set(self._ask("squeue", "-h", "-o", "%A").split())
        if ids:
            self._succeeds("scancel", *sorted(ids))

    def _sweep(self) -> None:
        """End all machines: the head while it still reaches the nodes, since slurmctld waits for those that it lost."""
        running = processes.machines(self.directory)
        head = running.pop(HEAD, None)
        if head is not None:
            processes.shut_down(head)
        for pid in running.values():
            processes.kill(pid)

    def _machine(self, name: str) -> int:
        running = processes.machines(self.directory)
        if name not in running:
            raise SlurmError(f"no machine {name} runs in {self.directory}; running: {', '.join(sorted(running))}")
        return running[name]

    def _ask(self, *argv: str) -> str:
        return process.run(argv, env={"PATH": system.PATH, **self.env()}, timeout_s=30.0)

    def _succeeds(self, *argv: str) -> bool:
        try:
            self._ask(*argv)
        except CommandError:
            return False
        return True

    def _layout(self) -> SandboxLayout:
        layout = read_layout(self.directory)
        if layout is None:
            raise SlurmError(f"no sandbox has been started in {self.directory}")
        return layout

    def _check(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise SlurmError(f"nodes = {self.nodes}: expected 1 to {MAX_NODES}")
        if len(os.fsencode(self.directory)) > _MAX_DIRECTORY:
            raise SlurmError(f"{self.directory}: expected a path of at most {_MAX_DIRECTORY} bytes")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        closed = expose.unreachable_parent(self.directory)
        if closed:
            raise SlurmError(f"the sandbox cannot live in {self.directory}: ordinary users cannot enter {closed}")

    def _locked(self) -> AbstractContextManager[None]:
        """Against other processes that start or stop the same sandbox."""
        return system.locked(self.directory / "lock")


def _node_word(commands: set[str] | None, word: str | None) -> str:
    if commands is None:
        return "off"
    return (word or "unknown") if "slurmd" in commands else "no slurmd"


def _wait(done: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            raise SlurmError(complaint)
        time.sleep(0.1)
