"""Making closed directories reachable for ordinary users inside a private mount namespace.

A path below a directory that only its owner may enter, such as a Python interpreter below /root, is of no use to a
job of another user. In the sandbox's mount namespaces the closed directory is covered by an empty one that everybody
may enter, and only the wanted paths are bound back into it. The real file system and its permissions stay as they are.
"""

import os
import shlex
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ...core.errors import SlurmError

_MAX_LINKS = 40  # as the kernel's own limit


class Cover(msgspec.Struct, frozen=True):
    """A closed directory to cover, and what to put back into it."""

    closed: Path
    directories: list[Path]
    links: dict[Path, str]  # symbolic link: its target


def plan(paths: Sequence[Path], private: Sequence[Path] = ()) -> list[Cover]:
    """The covers that let everybody reach `paths`, outer ones first. Raises SlurmError for one that is closed itself.

    Args:
        paths: what everybody must be able to read.
        private: what must be there for its owner, and may be closed to others.
    """
    closed_on_purpose = {_directory(Path(os.path.realpath(path))) for path in private}
    paths = [*paths, *private]
    covers: dict[Path, Cover] = {}
    shown: list[Path] = []
    links: dict[Path, str] = {}
    for path in paths:
        links |= _links_on(path)
    real = {_directory(Path(os.path.realpath(path))) for path in paths}
    for item in sorted(real | links.keys()):
        closed = _outermost_closed(item, shown)
        if item in links:
            if closed:
                covers.setdefault(closed, Cover(closed, [], {})).links[item] = links[item]
            continue
        if item not in closed_on_purpose and not _is_open(item):
            raise SlurmError(f"{item} is closed to ordinary users: chmod o+rx it, or leave it out of the sandbox")
        shown.append(item)
        if closed:
            covers.setdefault(closed, Cover(closed, [], {})).directories.append(item)
    return list(covers.values())


def mount_script(covers: Iterable[Cover], stash: Path) -> str:
    """Shell lines that carry out `covers`; `stash` is an empty directory to hold mounts for a moment."""
    covers = list(covers)
    if not covers:
        return ""
    held = {path: stash / str(index) for index, path in enumerate(p for cover in covers for p in cover.directories)}
    lines = [_line("mount", "-t", "tmpfs", "stash", stash)]
    for path, place in held.items():
        lines += [_line("mkdir", place), _line("mount", "--bind", path, place)]
    for cover in covers:
        lines.append(_line("mount", "-t", "tmpfs", "-o", "mode=755", "covered", cover.closed))
        for path in cover.directories:
            lines += [_line("mkdir", "-p", path), _line("mount", "--bind", held[path], path)]
        for link, target in cover.links.items():
            lines += [_line("mkdir", "-p", link.parent), _line("ln", "-sfn", target, link)]
    return "\n".join([*lines, _line("umount", "-R", stash)]) + "\n"


def unreachable_parent(path: Path) -> Path | None:
    """The outermost directory above `path` that ordinary users cannot enter."""
    return _outermost_closed(path, [])


def _outermost_closed(path: Path, shown: Iterable[Path]) -> Path | None:
    inside = max((root for root in shown if root in path.parents), key=lambda root: len(root.parts), default=Path("/"))
    between = [parent for parent in reversed(path.parents) if parent == inside or inside in parent.parents]
    return next((parent for parent in between if not parent.stat().st_mode & stat.S_IXOTH), None)


def _links_on(path: Path) -> dict[Path, str]:
    """Every symbolic link that the kernel follows on the way to `path`: where it lies, and its target."""
    links: dict[Path, str] = {}
    todo, here = list(path.absolute().parts[1:]), Path("/")
    while todo and len(links) < _MAX_LINKS:
        part = todo.pop(0)
        here = here.parent if part == ".." else here / part
        if here.is_symlink():
            links[here] = target = str(here.readlink())
            base = Path("/") if target.startswith("/") else here.parent
            todo, here = [*(p for p in Path(target).parts if p != "/"), *todo], base
    return links


def _directory(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _is_open(path: Path) -> bool:
    return path.stat().st_mode & 0o005 == 0o005


def _line(*words: str | Path) -> str:
    return shlex.join(map(str, words))
