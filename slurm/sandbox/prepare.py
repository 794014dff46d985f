"""Writing what a sandbox needs on disk before it can start. What is there already is kept: keys, database, job ids."""

import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...core.processes import process
from . import config, expose, system
from .layout import SandboxLayout

_OPEN_FOLDERS = ("etc", "run", "log", "spool", "dev", "stash")
_CLOSED_FOLDERS = ("state", "db", "tmp")


def prepare(layout: SandboxLayout, covers: Sequence[expose.Cover]) -> None:
    """Write configuration, key and GPU devices into the folders that `make_database` has made."""
    _write(layout.etc / "slurm.conf", config.slurm_conf(layout))
    _write(layout.etc / "slurmdbd.conf", config.slurmdbd_conf(layout), mode=0o600)  # slurmdbd insists
    _write(layout.etc / "gres.conf", config.gres_conf(layout))
    _write(layout.etc / "cgroup.conf", config.CGROUP_CONF)
    _write(layout.etc / "hosts", config.hosts(layout, Path("/etc/hosts").read_text(encoding="utf-8")))
    _write(layout.enter_script, config.enter_script(layout, expose.mount_script(covers, layout.stash)))
    _write(layout.file, msgspec.json.encode(layout).decode())
    _write_key(layout.munge_key)
    _make_gpus(layout)


def make_database(directory: Path) -> None:
    """Make the folders of a sandbox, and an empty database in them, which takes seconds. Raises CommandError."""
    for folder in (*_OPEN_FOLDERS, *_CLOSED_FOLDERS):
        path = directory / folder
        path.mkdir(exist_ok=True)
        path.chmod(0o700 if folder in _CLOSED_FOLDERS else 0o755)
    layout = _layout_of_files(directory)
    if (layout.database / "mysql").exists():
        return
    options = ["--no-defaults", "--user=root", f"--datadir={layout.database}", f"--tmpdir={layout.tmp}"]
    login = ["--skip-test-db", "--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
    process.run(["mariadb-install-db", *options, *login], env={"PATH": system.PATH, "TMPDIR": str(layout.tmp)})


def read_layout(directory: Path) -> SandboxLayout | None:
    """The layout that was prepared last in `directory`; None if none was."""
    path = _layout_of_files(directory).file
    return msgspec.json.decode(path.read_bytes(), type=SandboxLayout) if path.exists() else None


def _layout_of_files(directory: Path) -> SandboxLayout:
    """Where the files in `directory` are, which is the same for every number of nodes and every slot."""
    return SandboxLayout(directory=str(directory), nodes=0, slot=0)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _write_key(path: Path) -> None:
    if not path.exists():
        path.touch(mode=0o400)
        path.write_bytes(secrets.token_bytes(128))


def _make_gpus(layout: SandboxLayout) -> None:
    for path in map(Path, layout.pretended_gpus):
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
