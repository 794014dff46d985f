"""The folder of one tenant's kept responses on disk: `ID.json`, and `ID.removed` once it is there for later turns only.

A file is written beside and renamed, so that nobody sees half of one, and never changed. All block on the filesystem.
"""

import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...core import files
from ...core.errors import RunDirectoryError, UntrustedFileError
from ...core.trust import PRIVATE_FILE, check_status
from .ids import CONVERSATION, ResponseId, parsed
from .lineage import KeptFile

_LIVE, _REMOVED, _NEW = ".json", ".removed", ".new-"
_FOLDER = re.compile(r"[0-9a-f]{8}")  # a tenant's mark
_MOST_TRIES = 3  # of a write whose folder somebody removes, since it is empty


def path_of(folder: Path, id: ResponseId, *, is_removed: bool = False) -> Path:
    """Where a response is."""
    return folder / f"{id.text}{_REMOVED if is_removed else _LIVE}"


def write(path: Path, data: bytes) -> None:
    """Write a file; its folder is made if need be. Raises RunDirectoryError.

    What is lost when the node fails is lost: nobody waits for the disk.
    """
    for _ in range(_MOST_TRIES):
        if _write(path, data):
            return
        files.make_directory(path.parent)
    raise RunDirectoryError(f"cannot write {path}: its folder was removed")


def listed(folder: Path, sizes: Mapping[str, int], conversation: str | None = None) -> list[KeptFile]:
    """The responses in a folder, or those of one conversation. Raises RunDirectoryError.

    `sizes`: of those that are known already, by name.
    """
    found, names = [], names_in(folder)
    if conversation is not None:
        names = [name for name in names if name[CONVERSATION] == conversation]
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        id = parsed(stem)
        if id is not None and dot + suffix in (_LIVE, _REMOVED):
            with suppress(OSError):  # it was removed meanwhile
                size = sizes.get(stem)
                size = os.stat(folder / name, follow_symlinks=False).st_size if size is None else size
                found.append(KeptFile(id, size, dot + suffix == _REMOVED))
    return found


def hide(folder: Path, id: ResponseId) -> bool:
    """Remove a response for clients; whether it was there. Raises RunDirectoryError."""
    try:
        os.rename(path_of(folder, id), path_of(folder, id, is_removed=True))
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot remove {path_of(folder, id)}: {error.strerror}") from error


def strangers(folder: Path, before: float) -> list[Path]:
    """What is no response, and has not changed since `before` (Unix seconds): left by writers that are gone.

    Raises RunDirectoryError.
    """
    found = []
    for name in names_in(folder):
        stem, dot, suffix = name.rpartition(".")
        if parsed(stem) is None or dot + suffix not in (_LIVE, _REMOVED):
            with suppress(OSError):
                if os.stat(folder / name, follow_symlinks=False).st_mtime < before:
                    found.append(folder / name)
    return found


def folders_in(path: Path) -> list[Path]:
    """The tenants' folders. What has another name, or is a link, is none of ours: nothing in it is looked at.

    Raises RunDirectoryError.
    """
    found = [path / name for name in names_in(path) if _FOLDER.fullmatch(name)]
    return [folder for folder in found if not os.path.islink(folder)]


def names_in(path: Path) -> list[str]:
    """The names in a folder; none where it is none. Raises RunDirectoryError."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error


def is_there(path: Path) -> bool:
    """Whether there is a file. Raises RunDirectoryError."""
    try:
        return stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> bool:
    """Write a file into a folder that is ours and no link; False where there is no folder."""
    beside = f"{_NEW}{secrets.token_hex(8)}"
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error
    try:
        check_status(path.parent, os.fstat(folder))
        _fill(folder, beside, data)
        os.rename(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        return True
    except FileNotFoundError:
        return False
    except UntrustedFileError as error:
        raise RunDirectoryError(f"cannot write {path}: {error}") from error
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(folder)


def _fill(folder: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, PRIVATE_FILE, dir_fd=folder), "wb") as file:
        file.write(data)
