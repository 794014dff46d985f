"""Compiled libraries and packed weights that somebody else may have written, or that are none, are not loaded."""

import ctypes
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch

from slurminfer.core.errors import UntrustedFileError
from slurminfer.core.trust import TRUSTED_OWNERS
from slurminfer.nodes.native.model.fused import cache, library, store
from slurminfer.nodes.native.model.fused.parts import Parts
from slurminfer.quant.checkpoint.config import read_config

from .conftest import make_model

needs_compiler = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
STRANGER = 65432  # a uid that no user has


@pytest.fixture(autouse=True)
def say_again():
    cache.say_once.cache_clear()


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """A shared home of slurminfer, and the user's own."""
    shared, own = tmp_path / "shared", tmp_path / "user"
    monkeypatch.setenv("SLURMINFER_HOME", str(shared))
    monkeypatch.setenv("HOME", str(own))
    return shared, own / ".slurminfer"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def set_up(path: Path, what: str) -> None:
    """Put what is not to be loaded where `path` has a good file, owned by this user."""
    if what == "a link":
        path.rename(path.with_name("target"))
        path.symlink_to(path.with_name("target"))
    elif what == "a group's file":
        path.chmod(0o660)
    elif what == "a group's folder":
        path.parent.chmod(0o770)
    elif what == "a half":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
        if what == "a FIFO":
            os.mkfifo(path, 0o600)
        else:
            (path / "folder").mkdir(parents=True)


REFUSED = {
    "a link": "is a symbolic link",
    "a FIFO": "is no regular file",
    "a folder": "is no regular file",
    "a group's file": r"may be written by others \(mode 0660\)",
    "a group's folder": r"may be written by others \(mode 0770\)",
}


@needs_compiler
@pytest.mark.parametrize("what", [*REFUSED, "a half"])
def test_a_library_that_is_refused_is_compiled_anew(homes, lend_library, what, capfd, monkeypatch):
    lend_library(homes[0])
    place = library.place()
    assert place is not None and library.is_whole(place)
    compiled = place.read_bytes()[:-32]  # without its checksum
    set_up(place, what)
    assert not library.is_whole(place) and not library.is_whole(place)
    said = capfd.readouterr().err
    assert said.count("a compiled library is not loaded: ") == (what in REFUSED)  # once
    with pytest.raises((UntrustedFileError, OSError), match=REFUSED.get(what, "is damaged")):
        library.load(place)
    monkeypatch.setattr(library, "_run", lambda *command, scratch: Path(command[-1]).write_bytes(compiled))
    before = os.umask(0)
    try:
        library.compile_to(place)
    finally:
        os.umask(before)
    monkeypatch.undo()
    monkeypatch.setenv("SLURMINFER_HOME", str(homes[0]))
    assert library.place() == place and library.is_whole(place)
    library.load(place)
    assert mode(place) == 0o600 and not mode(place.parent) & 0o022
    assert [each.name for each in place.parent.iterdir() if each.name != "target"] == [place.name]


def test_folders_and_files_are_private_whatever_the_umask(homes, tmp_path):
    before = os.umask(0)
    try:
        path = homes[0] / "packed" / "weights.pt"
        store.write_later(path, Parts([], torch.ones(3), None, torch.ones(2, 2))).join()
    finally:
        os.umask(before)
    assert [mode(each) for each in (homes[0], path.parent, path)] == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("what", [*REFUSED, "a half"])
def test_packed_weights_that_are_refused_are_written_anew(homes, tmp_path, what, capfd):
    make_model(tmp_path / "model", "llama")
    config = read_config(tmp_path / "model")
    path, parts = homes[0] / "packed" / "weights.pt", Parts([], torch.ones(3), None, torch.ones(2, 2))
    store.write_later(path, parts).join()
    set_up(path, what)
    assert store.read(path, config) is None
    said = capfd.readouterr().err
    assert (
        "is damaged, weights are packed anew" in said if what == "a half" else "are not loaded, and made anew" in said
    )
    store.write_later(path, parts).join()
    with pytest.raises(ValueError, match="0 layers"), path.open("rb") as file:
        store._read(file, config)  # whole again: only that it has no layers is wrong with it
    assert mode(path) == 0o600 and not mode(path.parent) & 0o022


@as_root
def test_somebody_elses_cache_is_left_alone_and_the_users_own_is_used(homes, capfd, monkeypatch):
    shared, own = homes
    (shared / "kernels").mkdir(parents=True)
    os.chown(shared / "kernels", STRANGER, -1)
    assert cache.place("kernels", "x.so") == own / "kernels" / "x.so"
    assert f"kernels is owned by uid {STRANGER}: expected root" in capfd.readouterr().err
    monkeypatch.setenv(TRUSTED_OWNERS, str(STRANGER))
    assert cache.place("kernels", "x.so") == shared / "kernels" / "x.so"
    assert capfd.readouterr().err == ""


def test_of_a_cache_that_is_only_read_what_it_has_is_used(homes, monkeypatch):
    shared, own = homes
    (shared / "kernels").mkdir(parents=True, mode=0o755)
    (shared / "kernels" / "x.so").touch()
    monkeypatch.setattr(os, "access", lambda path, how: False)
    assert cache.place("kernels", "x.so") == shared / "kernels" / "x.so"
    assert cache.place("kernels", "y.so") == own / "kernels" / "y.so"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)  # as in containers of users whom nobody knows there
    assert cache.place("kernels", "y.so") == shared / "kernels" / "y.so"


@needs_compiler
def test_two_libraries_in_one_place_are_two(homes, lend_library, tmp_path):
    """The linker knows a library by its name: one that has replaced another is not taken for it."""
    lend_library(homes[0])
    place = library.place()
    assert place is not None
    first = library.load(place)
    copy = tmp_path / "copy.so"
    shutil.copy(place, copy)
    os.replace(copy, place)
    second = library.load(place)
    addresses = [ctypes.cast(each.sum_over, ctypes.c_void_p).value for each in (first, second)]
    assert addresses[0] != addresses[1]
