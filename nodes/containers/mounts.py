"""What of a node is in an engine's container, at the same paths."""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ...core.containers import Mount, is_mountable, parse_mount
from ...core.errors import EngineError
from ...core.paths import home
from ..engines.launch import EngineLaunch

_PACKAGE = Path(__file__).parents[2]
# Of the image: what an engine of the image loads from there must fit together.
_IMAGE_S = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev")


def mounts(launch: EngineLaunch) -> list[Mount]:
    """All mounts of an engine's container, outer folders before inner ones; the user's win where both name a target.

    Raises EngineError for a path that no mount can name.
    """
    own = [*map(_writable, _writable_folders(launch)), *map(_read_only, _readable_folders(launch))]
    given = [parse_mount(text) for text in launch.pool.container_mounts]
    by_target = {mount.target: mount for mount in [*_mountable(own), *given]}
    found: list[Mount] = []
    for mount in sorted(by_target.values(), key=lambda mount: len(PurePosixPath(mount.target).parts)):
        if not _is_there(mount, found):
            found.append(mount)
    return found


def may_be_mounted(folder: Path) -> bool:
    """Whether the folder can be in a container without hiding what the image has there."""
    return str(folder) != "/" and not any(folder.is_relative_to(taken) for taken in _IMAGE_S)


def _is_there(mount: Mount, outer: list[Mount]) -> bool:
    """Whether the innermost mount around this one already shows the same at its target."""
    path = PurePosixPath(mount.target)
    around = [other for other in outer if path.is_relative_to(other.target)]
    if not around:
        return False
    inside = PurePosixPath(around[-1].source) / path.relative_to(around[-1].target)
    return str(inside) == mount.source and around[-1].read_only == mount.read_only


def _writable_folders(launch: EngineLaunch) -> Iterator[Path]:
    """Caches and the run directory, scratch, the folder of the engine's socket, and caches on the node's disk."""
    yield home()
    yield Path(tempfile.gettempdir())
    yield launch.private
    if launch.caches is not None:
        yield launch.caches.folder


def _readable_folders(launch: EngineLaunch) -> Iterator[Path]:
    """The models, slurminfer's package (a launcher of an engine is part of it), and its environment if that starts."""
    draft = launch.speculative and launch.speculative.draft_model
    for model in (launch.model.path, draft):
        if model:
            yield from _with_linked(Path(model))
    yield from _package()
    if launch.python == sys.executable:
        yield from _environment()


def _with_linked(folder: Path) -> Iterator[Path]:
    """A model's directory, and the folders that links in it lead to, as those of the hub's cache do."""
    yield folder
    if folder.is_dir():
        targets = (entry.resolve().parent for entry in folder.iterdir() if entry.is_symlink())
        yield from dict.fromkeys(target for target in (folder.resolve(), *targets) if target != folder)


def _package() -> Iterator[Path]:
    """The package's folder, and those that it links to where it is installed for development."""
    yield _PACKAGE
    yield from (entry.resolve() for entry in _PACKAGE.iterdir() if entry.is_symlink())


def _environment() -> Iterator[Path]:
    """Where this interpreter and its modules are."""
    found = [Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)]
    yield from (path for path in found if path.is_absolute() and path.is_dir() and may_be_mounted(path))


def _mountable(found: Iterable[Mount]) -> Iterator[Mount]:
    for mount in found:
        if not is_mountable(mount.source):
            raise EngineError(f"{mount.source!r} cannot be in a container: its path has a comma, colon or newline")
        yield mount


def _writable(folder: Path) -> Mount:
    return Mount(os.fspath(folder), os.fspath(folder))


def _read_only(folder: Path) -> Mount:
    return Mount(os.fspath(folder), os.fspath(folder), read_only=True)
