import errno
import os
import signal

import pytest

from slurminfer.core.errors import ModelError, UntrustedFileError
from slurminfer.quant.cache import make_once
from slurminfer.quant.progress import silent

# Makes the model "m": says when it has begun, goes on when a file "go" is there, then says which file won.
MAKER = """
import pathlib, sys, time
from slurminfer.quant.cache import make_once
go, name = pathlib.Path(sys.argv[1]), sys.argv[2]

def make(directory):
    (directory / "weights").write_text(name)
    print("making", flush=True)
    while not go.exists():
        time.sleep(0.01)

print((make_once("m", make, lambda stage, done, total: print(stage, flush=True)) / "weights").read_text())
"""


def write(text):
    return lambda directory: (directory / "weights").write_text(text)


def hidden(home, prefix=".tmp-"):
    return [path.name for path in home.glob(f"{prefix}*")]


@pytest.mark.parametrize("harm", ["empty", "part", "file", "link"])
def test_what_is_left_of_a_model_is_made_anew(home, harm):
    home.mkdir(parents=True)
    if harm == "file":
        (home / "m").write_text("")
    elif harm == "link":
        (home / "m").symlink_to(home / "away")
    else:
        (home / "m").mkdir()
        (home / "m" / "config").write_text("") if harm == "part" else None
    make_once("m", write("new"), silent, ["weights"])
    assert [path.name for path in (home / "m").iterdir()] == ["weights"] and not (home / "away").exists()


def test_a_model_that_others_may_write_is_refused(home):
    make_once("m", write("first"), silent)
    (home / "m").chmod(0o777)
    with pytest.raises(UntrustedFileError, match="may be written by others"):
        make_once("m", write("second"), silent)


def test_a_model_of_another_user_is_refused(home):
    make_once("m", write("first"), silent)
    os.chown(home / "m", 12345, -1) if os.geteuid() == 0 else pytest.skip("needs root")
    with pytest.raises(UntrustedFileError, match="is owned by uid 12345"):
        make_once("m", write("second"), silent)


@pytest.mark.parametrize("umask", [0, 0o002, 0o022])
def test_models_are_made_in_private(home, umask):
    before = os.umask(umask)
    try:
        make_once("m", write("first"), silent)
    finally:
        os.umask(before)
    paths = (home, home / "m", home / "m" / "weights")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700, 0o600]


def test_a_model_is_made_once(home):
    assert make_once("m", write("first"), silent) == home / "m"
    make_once("m", write("second"), silent)
    assert (home / "m" / "weights").read_text() == "first" and not hidden(home)


def test_a_failure_leaves_nothing_and_is_passed_on(home):
    def fail(directory):
        write("half")(directory)
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        make_once("m", fail, silent)
    assert not (home / "m").exists() and not hidden(home)
    assert make_once("m", write("whole"), silent).is_dir()


def test_a_full_disk_is_said_and_leaves_nothing(home):
    def fill(directory):
        write("half")(directory)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ModelError, match=f"cannot write model m into {home}: No space left on device"):
        make_once("m", fill, silent)
    assert not (home / "m").exists() and not hidden(home)


def test_a_home_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot write model m into .*: Not a directory"):
        make_once("m", write("x"), silent)


def test_of_two_processes_one_makes_and_the_other_waits(home, start_python, tmp_path):
    first = start_python(MAKER, tmp_path / "go", "first")
    assert first.stdout.readline() == "making\n"
    second = start_python(MAKER, tmp_path / "go", "second")
    assert second.stdout.readline() == "wait for another process\n"
    (tmp_path / "go").touch()
    assert (first.stdout.read(), second.stdout.read()) == ("first\n", "first\n")
    assert not hidden(home)


def test_without_locks_both_make_and_the_first_rename_wins(home):
    def overtaken(directory):
        write("late")(directory)
        write_directly = home / "m"
        write_directly.mkdir()
        write("early")(write_directly)

    assert (make_once("m", overtaken, silent) / "weights").read_text() == "early"
    assert not hidden(home)


def test_what_a_killed_process_left_is_swept_even_by_another_model(home, start_python, tmp_path):
    killed = start_python(MAKER, tmp_path / "go", "killed")
    assert killed.stdout.readline() == "making\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(hidden(home)) == 1 and not (home / "m").exists()
    make_once("other", write("x"), silent)
    assert not hidden(home)
    assert (make_once("m", write("again"), silent) / "weights").read_text() == "again"


def test_what_a_living_process_makes_is_not_swept(home, start_python, tmp_path):
    living = start_python(MAKER, tmp_path / "go", "living")
    assert living.stdout.readline() == "making\n"
    make_once("other", write("x"), silent)
    (tmp_path / "go").touch()
    assert living.stdout.read() == "living\n"
