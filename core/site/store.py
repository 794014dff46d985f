"""The site profile on disk, kept for later commands: what the doctor has learned, and a file per measurement."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import RunDirectoryError
from ..files import encode_json, make_directory, parse_versioned, read_private, write_atomic
from ..paths import site_root
from . import doctor
from .communication import VERSION, CommProfile
from .doctor import SiteProfile

_LONGEST_NAME = 80
_MOST_BYTES = 64 << 20  # a hundred partitions have about one MiB


def write_site(profile: SiteProfile) -> Path:
    """Keep the profile in place of an earlier one; the file. Raises RunDirectoryError."""
    path = _site_file()
    make_directory(path.parent)
    write_atomic(path, encode_json(profile))
    return path


def read_site() -> SiteProfile | None:
    """What the doctor has learned; None if it was never asked. Raises RunDirectoryError for another layout."""
    path = _site_file()
    text = read_private(path, most_bytes=_MOST_BYTES)
    what = "site profile of this version; 'slurminfer doctor' writes a new one"
    return None if text is None else parse_versioned(path, text, SiteProfile, doctor.VERSION, what=what)


def write_comm(profile: CommProfile) -> Path:
    """Keep the profile in place of an earlier one of its key; the file. Raises RunDirectoryError."""
    path = _comm_root() / f"{_file_name(profile.key)}.json"
    make_directory(path.parent)
    write_atomic(path, encode_comm(profile))
    return path


def read_comms() -> tuple[CommProfile, ...]:
    """All profiles that are kept, the latest first. Raises RunDirectoryError for a file that is none."""
    paths = sorted(_comm_root().glob("*.json"))
    return tuple(sorted(_present(map(read_comm, paths)), key=lambda profile: profile.date, reverse=True))


def read_comm(path: Path) -> CommProfile | None:
    """The profile in a file; None if there is no file. Raises RunDirectoryError if it is none of this version."""
    text = read_private(path)
    if text is None:
        return None
    try:
        profile = msgspec.json.decode(text, type=CommProfile)
    except msgspec.DecodeError as error:
        raise RunDirectoryError(f"{path} is no measurement of communication: {error}") from error
    if profile.version != VERSION:
        raise RunDirectoryError(f"{path}: version = {profile.version}: expected {VERSION}; remove it and measure again")
    return profile


def encode_comm(profile: CommProfile) -> str:
    """The profile as JSON, for people to read as well."""
    return encode_json(profile)


def _site_file() -> Path:
    return site_root() / "doctor.json"


def _comm_root() -> Path:
    return site_root() / "comm"


def _present(profiles: Iterable[CommProfile | None]) -> list[CommProfile]:
    return [profile for profile in profiles if profile is not None]


def _file_name(key: str) -> str:
    """Readable, and of its own for every key."""
    words = re.sub(r"[^A-Za-z0-9.+-]+", "-", key)[:_LONGEST_NAME]
    return f"{words}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
