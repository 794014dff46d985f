"""Where on a node's own disk there is room for weights and caches, and the folder there that is this user's alone."""

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...core.errors import EngineError, RunDirectoryError, StagingError, UntrustedFileError
from ...core.site.machine import Folder
from ...core.site.store import read_site
from ...core.slurm_env import job_id, node_name, partition
from ...core.trust import OTHERS_RIGHTS, PRIVATE_FOLDER, require_kept_from_others
from ..doctor.folders import SCRATCH, TEMPORARY
from ..doctor.mounts import mount_of

_USUAL = ("SLURM_TMPDIR", "TMPDIR")  # where the doctor was never asked


def given_folder(given: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that a user has named, with variables filled in.

    Raises EngineError for a name that cannot be one here, StagingError where there is no folder for this.
    """
    filled = re.sub(r"\$(\w+|\{\w+\})", lambda found: environ.get(found[1].strip("{}"), found[0]), given)
    if "$" in filled or not os.path.isabs(filled):
        expected = f"gives {filled!r} on {node_name(environ)}: expected variables that are set, and an absolute path"
        raise EngineError(f"stage_weights = {given!r} {expected}")
    if why_not := _why_not(Path(filled)):
        raise StagingError(f"{filled} {why_not}")
    return Path(filled)


def node_scratch(environ: Mapping[str, str] = os.environ, *, outlives_job: bool = False) -> Path:
    """The node's scratch: as `slurminfer doctor` has found it, else SLURM_TMPDIR or TMPDIR.

    Folders that outlive the job come first; with `outlives_job` there are no others. Raises StagingError that names
    what was looked at, where there is none.
    """
    found, refused = [], []
    for name, path in dict.fromkeys([*_seen(environ), *_named(environ)]):
        why_not = _why_not(path) or ("is main memory" if mount_of(path).is_memory else "")
        if why_not:
            refused.append(f"{name} = {path} {why_not}")
        else:
            found.append((is_of_job(path, environ), path))
    found = [entry for entry in found if not (outlives_job and entry[0])]
    if not found:
        why = "; ".join(refused) or f"'slurminfer doctor' has seen none, and neither {' nor '.join(_USUAL)} is set"
        raise StagingError(f"no scratch was found on {node_name(environ)}: {why}")
    return min(found, key=lambda entry: entry[0])[1]


def is_of_job(path: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the folder seems to be made for this job, and removed at its end: its place has the job's id in it.

    Of a private /tmp, the folder that is mounted there has.
    """
    job = job_id(environ)
    places = f"{path.resolve()} {mount_of(path).root}"
    return job is not None and re.search(rf"(?<!\d){job}(?!\d)", places) is not None


def own_folder(parent: Path, *names: str) -> Path:
    """The folder slurminfer-UID in `parent`, and those below it, for this user alone; made where they are not there.

    Raises StagingError where others could put something in its place, or have.
    """
    try:
        require_kept_from_others(parent)
        path = _private(parent / f"slurminfer-{os.geteuid()}")
        for name in names:
            path = _private(path / name)
        return path
    except (OSError, UntrustedFileError) as error:
        raise StagingError(f"{parent} is not used: {error}") from error


def _private(path: Path) -> Path:
    try:
        path.mkdir(PRIVATE_FOLDER)
    except FileExistsError:
        status = path.lstat()
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not is_ours or status.st_mode & OTHERS_RIGHTS:
            is_foreign = status.st_uid != os.geteuid()
            what = f"have uid {status.st_uid} or an administrator remove it" if is_foreign else "remove it"
            raise UntrustedFileError(f"{path} is not a folder of yours with mode 0700; {what}") from None
    return path


def _seen(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """What the doctor has found in this partition, the roomiest first, by what it is called here and now."""
    usable = [one for one in _folders(environ) if one.is_writable and not (one.is_shared or one.is_memory)]
    for folder in sorted(usable, key=lambda one: one.free or 0, reverse=True):
        for purpose in folder.purpose.split(", "):
            if purpose == TEMPORARY:
                yield TEMPORARY, Path(tempfile.gettempdir())
            elif purpose in SCRATCH and environ.get(purpose):
                yield purpose, Path(environ[purpose])


def _folders(environ: Mapping[str, str]) -> list[Folder]:
    try:
        profile = read_site()
    except RunDirectoryError:  # of another version, or damaged: the doctor says so
        return []
    if profile is None:
        return []
    name = partition(environ)
    machines = [report.machine for one in profile.partitions if one.name == name for report in one.reports]
    return [folder for machine in machines or [profile.here] for folder in machine.folders]


def _named(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    yield from ((name, Path(environ[name])) for name in _USUAL if environ.get(name))


def _why_not(path: Path) -> str:
    """Why the folder cannot be used; empty if it can."""
    if not path.is_dir():
        return "is no folder here"
    if not os.access(path, os.W_OK | os.X_OK):
        return "is not writable"
    mount = mount_of(path)
    return f"is on {mount.kind}, which other machines see too" if mount.is_shared else ""
