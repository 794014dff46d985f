"""The native engine's compiled library, made once for all workers of pytest."""

from pathlib import Path

from slurminfer.core.locks import wait_lock
from slurminfer.nodes.native.model.fused import library


def compiled_library() -> Path | None:
    """The path of the library where an engine looks for it, compiled if need be; None where it cannot be."""
    path = library.place()
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".test-lock").open("w") as file:
        wait_lock(file)
        if not library.is_whole(path):
            library.compile_to(path)
    return path
