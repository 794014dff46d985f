"""Locks of open files by flock(2), held until the file is closed or its process ends, however it ends.

What a caller hears of a filesystem without locks (Lustre mounted without `-o flock`, some NFS servers) is
`Lock.UNSUPPORTED`: nothing is locked, nothing was waited for, and the caller must be right without it, or warn.

Why not the filelock package, whose users meet the same cases. It locks a path, not an open file:

    - a batch's output is locked itself, so that no lock file stays beside it, and so that every name of the file, a
      symbolic link included, means the same lock. filelock 3.16 and 3.20 empty the file that they lock (O_TRUNC), 4.3
      refuses a symbolic link (O_NOFOLLOW); a `.lock` beside the output would know one name only.
    - on ENOSYS 4.3 falls back on marker files, which a killed process leaves behind; on ENOLCK and EOPNOTSUPP, which
      mean the same to a user, it raises.
"""

import errno
import fcntl
from enum import Enum
from typing import IO

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Lock(Enum):
    """What came of an attempt to lock a file."""

    HELD = "held"  # by the caller, from now on; shared with others if that was asked for
    BUSY = "busy"  # held through another open file, of this process or of another one
    UNSUPPORTED = "unsupported"  # the filesystem has no locks


def try_lock(file: int | IO[str]) -> Lock:
    """Lock an open file for the caller alone, given as such or as its descriptor, without waiting.

    Raises OSError for whatever else goes wrong; a filesystem without locks is no error.
    """
    try:
        return _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.BUSY


def try_share(file: int | IO[str]) -> Lock:
    """Lock an open file so that others may share the lock, but none may have it alone; without waiting.

    A lock that was held through this open file is given up first, also where the answer is BUSY. Raises as `try_lock`.
    """
    try:
        return _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.BUSY


def wait_lock(file: int | IO[str]) -> Lock:
    """Lock an open file, given as such or as its descriptor, as soon as nobody else holds it.

    The answer is HELD or UNSUPPORTED. Raises OSError as `try_lock`.
    """
    return _flock(file, fcntl.LOCK_EX)


def _flock(file: int | IO[str], operation: int) -> Lock:
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return Lock.UNSUPPORTED
    return Lock.HELD
