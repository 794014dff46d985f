"""Which closed directories are covered, and what is put back into them. Nothing is mounted here."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurminfer.core.errors import SlurmError
from slurminfer.slurm.sandbox.expose import Cover, mount_script, plan, unreachable_parent


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def make(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def test_what_everybody_can_reach_needs_no_cover(root):
    assert plan([make(root / "open/python")]) == []
    assert mount_script([], root) == ""


def test_the_outermost_closed_directory_is_covered_once(root):
    closed = make(root / "home", 0o700)
    inner = make(closed / "private", 0o700)
    first, second = make(inner / "python"), make(closed / "checkout")
    assert plan([first, second]) == [Cover(closed, [second, first], {})]


def test_a_closed_directory_inside_an_exposed_one_gets_its_own_cover(root):
    closed = make(root / "home", 0o700)
    outer = make(closed / "tools")
    private = make(outer / "private", 0o700)
    inner = make(private / "python")
    assert plan([outer, inner]) == [Cover(closed, [outer], {}), Cover(private, [inner], {})]


def test_a_path_inside_an_exposed_one_is_not_bound_again(root):
    closed = make(root / "home", 0o700)
    outer = make(closed / "tools")
    make(outer / "bin")
    assert plan([outer, outer / "bin"]) == [Cover(closed, [outer], {})]


def test_links_on_the_way_are_made_again_inside_the_cover(root):
    closed = make(root / "home", 0o700)
    real = make(closed / "python-3.11.7")
    (closed / "python-3.11").symlink_to("python-3.11.7")
    (root / "python").symlink_to(closed / "python-3.11")
    assert plan([root / "python"]) == [Cover(closed, [real], {closed / "python-3.11": "python-3.11.7"})]


def test_a_file_stands_for_its_directory(root):
    closed = make(root / "home", 0o700)
    folder = make(closed / "bin")
    (folder / "python").touch()
    assert plan([folder / "python"]) == [Cover(closed, [folder], {})]


def test_a_path_that_is_closed_itself_is_an_error(root):
    with pytest.raises(SlurmError, match="python is closed to ordinary users"):
        plan([make(root / "home/python", 0o700)])


def test_what_is_for_its_owner_alone_is_put_back_as_it_is(root):
    closed = make(root / "home", 0o700)
    own = make(closed / ".slurminfer", 0o700)
    assert plan([], [own]) == [Cover(closed, [own], {})]


def test_the_script_holds_all_directories_before_it_covers_any(root):
    closed = make(root / "home", 0o700)
    script = mount_script([Cover(closed, [closed / "a b", closed / "c"], {})], root / "stash")
    lines = script.splitlines()
    cover = lines.index(f"mount -t tmpfs -o mode=755 covered {closed}")
    assert lines.index(f"mount --bind '{closed}/a b' {root}/stash/0") < cover
    assert lines.index(f"mount --bind {closed}/c {root}/stash/1") < cover
    assert lines[-1] == f"umount -R {root}/stash"


def test_the_directory_that_keeps_others_out_is_named(root):
    closed = make(root / "home", 0o700)
    assert unreachable_parent(make(closed / "a/b")) == closed
    assert unreachable_parent(make(root / "open/b")) is None
