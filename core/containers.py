"""The image that a pool's engine runs in: for which runtimes it is, and what is mounted into the container."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import SpecError

ContainerRuntime = Literal["apptainer", "pyxis"]

_SCHEMES = ("docker://", "oras://", "library://", "shub://", "https://")
_OF_PYXIS = (".sqsh", ".squashfs")
_OF_APPTAINER = (".sif", ".simg", ".img")
_REFERENCE = re.compile(r"[A-Za-z0-9][\w.@#:/+-]*", re.ASCII)
_IMAGE_RULE = (
    "expected an absolute path (.sif, .sqsh or a directory), docker://, oras://, library://, shub:// or https:// for "
    "apptainer, or docker:// or [REGISTRY#]IMAGE[:TAG] for pyxis"
)
_MOUNT_RULE = (
    "expected '/path', '/path:/path-in-container' or '/path:/path-in-container:ro', absolute and without commas"
)


@dataclass(frozen=True)
class Mount:
    """A path of the node, and where it is in the container."""

    source: str
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


def is_path(image: str) -> bool:
    """Whether an image is a file or directory, not something to be pulled."""
    is_named = "://" not in image and image.endswith((*_OF_PYXIS, *_OF_APPTAINER))
    return image.startswith(("/", ".", "~")) or is_named


def runtimes_of(image: str) -> tuple[ContainerRuntime, ...]:
    """The runtimes that can run an image, by its form, the usual one first. Empty: it has no valid form."""
    if is_path(image):
        if image.endswith(_OF_APPTAINER):
            return ("apptainer",)
        return ("pyxis", "apptainer") if image.endswith(_OF_PYXIS) else ("apptainer",)
    if image.startswith("docker://"):
        return ("apptainer", "pyxis")
    if image.startswith(_SCHEMES):
        return ("apptainer",)
    return ("pyxis",) if "://" not in image and _REFERENCE.fullmatch(image) else ()


def parse_mount(text: str) -> Mount:
    """The mount that "/a", "/a:/b", "/a:/b:ro" or "/a:/b:rw" says. Raises ValueError."""
    source, *rest = text.split(":")
    target, mode = (*rest, "", "")[:2]
    is_whole = len(rest) <= 2 and mode in ("", "ro", "rw") and (not rest or target)
    if not is_whole or not all(is_mountable(path) for path in (source, target or source)):
        raise ValueError(text)
    return Mount(source, target or source, mode == "ro")


def is_mountable(path: str) -> bool:
    """Whether a runtime's options can name the path: absolute, and without what separates their parts."""
    return path.startswith("/") and not re.search(r"[,:\n]", path)


def check_container(key: str, image: str | None, runtime: ContainerRuntime | None, mounts: tuple[str, ...]) -> None:
    """Raise SpecError for an image, a runtime or mounts that cannot be. Files are not looked at.

    Args:
        key: of the pool, such as pool[0].
    """
    if image is None:
        for name, value in (("container_runtime", runtime), ("container_mounts", list(mounts) or None)):
            if value is not None:
                raise SpecError(f"{key}.{name}", value, "expected only with container = 'image'")
        return
    possible = runtimes_of(image)
    if not possible or (is_path(image) and not is_mountable(image)):
        hint = f"; here: {Path(image).expanduser().absolute()}" if is_path(image) else ""
        raise SpecError(f"{key}.container", image, _IMAGE_RULE + hint)
    if runtime is not None and runtime not in possible:
        valid = " or ".join(possible)
        raise SpecError(f"{key}.container_runtime", runtime, f"expected {valid} for container = {image!r}")
    for place, text in enumerate(mounts):
        try:
            parse_mount(text)
        except ValueError:
            raise SpecError(f"{key}.container_mounts[{place}]", text, _MOUNT_RULE) from None
