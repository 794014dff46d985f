"""The identity of the router's port for its own commands: the same API, after both ends have proven themselves.

A command that finds the router's address in `router.json` cannot know who listens there: if the router was killed,
another user may have taken its port. Here the command learns it before it sends its key.
"""

from ..core.errors import RunDirectoryError
from ..core.files import read_private, restore
from ..core.net.identity import make_identity
from ..core.rundir import RunDirectory


class PrivateIdentity:
    """The file by which commands know this router."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._path = run, run.router_identity_path
        self._pem: str | None = None

    def make(self) -> str:
        """Write it, if that has not been done yet; its PEM. Raises RunDirectoryError."""
        if self._pem is None:
            make_identity(self._path, f"slurminfer router {self._run.path.name}")
            self._pem = read_private(self._path)
            if self._pem is None:
                raise RunDirectoryError(f"{self._path} has vanished")
        return self._pem

    def restore(self) -> None:
        """Write it again if another router has put its own there, or it is damaged. Raises RunDirectoryError."""
        if self._pem is not None:
            restore(self._path, self._pem)

    def retract(self) -> None:
        """Remove it, unless a later router has put its own there."""
        try:
            if self._pem is not None and read_private(self._path) == self._pem:
                self._path.unlink(missing_ok=True)
        except (RunDirectoryError, OSError):  # without this process the identity is useless anyway
            return
