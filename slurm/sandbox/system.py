"""What the sandbox needs of the machine: root, Debian's packages, users, and locks between processes."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ...core.errors import SlurmError
from ...core.locks import Lock, wait_lock
from ...core.machine.readings import DEVICES, device_files
from ...core.processes import process

PACKAGES = ("slurm-wlm", "slurmdbd", "mariadb-server", "munge")
INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMMANDS = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "mariadbd", "munged", "unshare", "setpriv")
_DEVICES = DEVICES
_MACHINE_LOCK = Path("/run/slurminfer-sandbox.lock")
_POLICY = Path("/usr/sbin/policy-rc.d")  # invoke-rc.d(8): exit code 101 forbids a service to start


def require_root() -> None:
    """Raise SlurmError for ordinary users."""
    if os.geteuid() != 0:
        raise SlurmError("the sandbox needs root, for its namespaces and for running jobs as other users")


def require_packages() -> None:
    """Raise SlurmError, with the command that installs them, where packages are missing."""
    absent = [name for name in _COMMANDS if not shutil.which(name, path=PATH)]
    if absent:
        raise SlurmError(f"the sandbox needs {', '.join(absent)}; on Debian: {' '.join(INSTALL)}")


def install() -> None:
    """Install the packages without starting their services. Raises SlurmError, CommandError."""
    require_root()
    if not shutil.which("apt-get"):
        raise SlurmError(f"the sandbox needs Debian or Ubuntu: there is no apt-get to install {' '.join(PACKAGES)}")
    env = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    process.run(["apt-get", "update"], env=env, timeout_s=300)
    ours = _forbid_services()
    try:
        process.run(INSTALL, env=env, timeout_s=900)
    finally:
        if ours:
            _POLICY.unlink()


def gpus() -> list[str]:
    """The device files of this machine's GPUs. Raises SlurmError if it has none."""
    found = device_files(_DEVICES)
    if not found:
        raise SlurmError(f"this machine has no GPUs: expected {_DEVICES}/nvidia0")
    return list(map(str, found))


def create_user(name: str) -> pwd.struct_passwd:
    """The system user `name` with a home directory, made if there is none. Raises CommandError."""
    with machine_lock():  # useradd gives up at once where another one works on /etc/passwd
        try:
            return pwd.getpwnam(name)
        except KeyError:
            process.run(["useradd", "--create-home", "--shell", "/bin/bash", name], env={"PATH": PATH})
            return pwd.getpwnam(name)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, once nobody else does. Raises SlurmError on a filesystem without locks."""
    with path.open("a", encoding="utf-8") as file:
        if wait_lock(file) is Lock.UNSUPPORTED:
            raise SlurmError(f"cannot lock {path}: expected a filesystem with flock(2)")
        yield


def machine_lock() -> AbstractContextManager[None]:
    """Hold what all sandboxes of this machine share: its ports, from the choice until daemons listen, and its users."""
    return locked(_MACHINE_LOCK)


def _forbid_services() -> bool:
    """Forbid packages to start services; False if the machine does so already."""
    if _POLICY.exists():
        return False
    with tempfile.NamedTemporaryFile("w", dir=_POLICY.parent, delete=False, encoding="utf-8") as file:
        file.write("#!/bin/sh\nexit 101\n")
    Path(file.name).chmod(0o755)
    Path(file.name).rename(_POLICY)
    return True
