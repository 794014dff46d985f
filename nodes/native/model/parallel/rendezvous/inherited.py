"""What the first rank of a node hands on to the others, which it starts: the worker's secret, and memory to share.

Both are inherited. Nobody else can read the environment of this user's processes, and the memory has no name.
"""

import os
import secrets
import stat
from collections.abc import Mapping, MutableMapping

from ......core.errors import UsageError
from ....options import RANK_SECRET_VARIABLE, ParallelOptions

MEMORY_VARIABLE = "SLURMINFER_RANK_MEMORY"  # of the environment: the number of an open file
_NAME = "slurminfer"


def make_secret(place: ParallelOptions, environ: MutableMapping[str, str] = os.environ) -> None:
    """Put the secret of this worker into the environment, unless it is there; on one node, its first rank draws it.

    Raises UsageError where it is missing and others would have to know it.
    """
    if environ.get(RANK_SECRET_VARIABLE):
        return
    if place.nodes == 1 and place.local_rank == 0:
        environ[RANK_SECRET_VARIABLE] = secrets.token_hex(32)
    else:
        raise UsageError(
            f"{RANK_SECRET_VARIABLE} is missing in the environment: expected the same secret for all ranks of this "
            "model, such as what `openssl rand -hex 32` prints"
        )


def rank_secret(environ: Mapping[str, str] = os.environ) -> str:
    """The secret that `make_secret` has put into the environment."""
    return environ[RANK_SECRET_VARIABLE]


def make_memory(environ: MutableMapping[str, str] = os.environ) -> int:
    """An open file, which is empty memory: for `environ`, and for `pass_fds` of the ranks that are started with it."""
    file = os.memfd_create(_NAME)
    environ[MEMORY_VARIABLE] = str(file)
    return file


def inherited_memory(environ: Mapping[str, str] = os.environ) -> int:
    """The open file that this node's ranks share as memory. Raises OSError where this process has none."""
    said = environ.get(MEMORY_VARIABLE, "")
    if not said.isdecimal():
        raise OSError("this rank has inherited no memory to share")
    file = int(said)
    status, name = os.fstat(file), os.readlink(f"/proc/self/fd/{file}")
    if not (stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and name.startswith(f"/memfd:{_NAME} ")):
        raise OSError(f"{MEMORY_VARIABLE}={said} is {name}, expected memory of this user")
    return file
