"""Where what is made for a model and a machine is kept: compiled libraries and packed weights.

They lie in `$SLURMINFER_HOME`, which may be shared and read-only. What cannot be trusted or written there is made in
the user's own `~/.slurminfer`. Everything here may be removed at any time.
"""

import functools
import os
import shutil
import sys
from pathlib import Path

from .....core.errors import UntrustedFileError
from .....core.paths import home
from .....core.trust import require_trusted_folder


def place(kind: str, name: str) -> Path:
    """Where the file `name` lies or would lie, in a folder named for its `kind`."""
    shared = home() / kind
    try:
        require_trusted_folder(shared)
    except UntrustedFileError as error:
        if shared.stat().st_uid == os.geteuid():  # made private before anything is written
            return shared / name
        say_once(f"{error}; the cache in your home directory is used")
        return _own(shared, name)
    except OSError:  # missing, or unusable, which is reported on writing
        return shared / name
    return shared / name if os.access(shared, os.W_OK) or (shared / name).exists() else _own(shared, name)


def _own(shared: Path, name: str) -> Path:
    """The same in this user's home directory. Users of containers may have none."""
    try:
        return Path.home() / ".slurminfer" / shared.name / name
    except RuntimeError:
        return shared / name


def put(made: Path, path: Path) -> None:
    """Move a file to `path`, in place of whatever is there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    os.replace(made, path)


@functools.cache
def say_once(text: str) -> None:
    """Print a line to stderr, the first time that it is said."""
    print(text, file=sys.stderr, flush=True)
