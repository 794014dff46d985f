"""Copies of weights on a node: made once, shared, checked, and removed."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from slurminfer.core.errors import RunDirectoryError, StagingError
from slurminfer.nodes.staging import source as sources
from slurminfer.nodes.staging import store as stores
from slurminfer.nodes.staging import transfer
from slurminfer.nodes.staging.source import source_of

from ...support.waiting import eventually

COPIER = """
import os, sys, time
from pathlib import Path
from slurminfer.nodes.staging import source as sources
from slurminfer.nodes.staging import transfer
from slurminfer.nodes.staging.source import source_of
from slurminfer.nodes.staging.store import Store

model, disk, halts = sys.argv[1:]
if halts:
    def write(*_):
        os.write(1, b"halted\\n")  # print would mix the lines of several threads
        time.sleep(600)
    transfer._write = write
use = Store(Path(disk), time.sleep, lambda text: print(text, flush=True)).enter(source_of(Path(model)))
print("has copied" if use.has_copied else "shares", use.path, flush=True)
sys.stdin.read()
use.leave()
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(disk: Path) -> list[str]:
    return sorted(path.name for path in disk.iterdir())


def flip_a_byte(path: Path) -> None:
    """Damage that sizes and times of modification do not tell."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_copy_has_the_same_files_and_times_for_its_user_alone(model, disk, open_store):
    use = open_store().enter(source_of(model))
    assert use.has_copied and files_of(use.path) == files_of(model)
    assert str(use.path).endswith(str(model)), "what looks for a model's name in its path finds it"
    for name in files_of(model):
        assert (use.path / name).stat().st_mtime_ns == (model / name).stat().st_mtime_ns
        assert stat.S_IMODE((use.path / name).stat().st_mode) == 0o600
    use.leave()
    assert names(disk) == []


def test_a_model_in_several_segments_by_several_threads(model, monkeypatch, open_store):
    monkeypatch.setattr(transfer, "_SEGMENT", 100_000)
    monkeypatch.setattr(transfer, "_BLOCK", 30_000)
    use = open_store().enter(source_of(model))
    assert files_of(use.path) == files_of(model)
    assert len(next(file for file in use.entry.manifest().files if file.name == "model.safetensors").checksums) == 4
    use.leave()


def test_a_model_that_is_one_file(model, open_store):
    gguf = model.parent / "small.gguf"
    gguf.write_bytes(b"GGUF" + bytes(1000))
    use = open_store().enter(source_of(gguf))
    assert use.path.name == "small.gguf" and use.path.read_bytes() == gguf.read_bytes()
    use.leave()


def test_links_are_followed_and_other_formats_left_out(tmp_path, open_store):
    snapshot, blobs = tmp_path / "models--org--name" / "snapshots" / "abc", tmp_path / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "original.pth"):
        (blobs / f"blob-{name}").write_text(name)
        (snapshot / name).symlink_to(f"../../blobs/blob-{name}")
    (snapshot / "again").symlink_to(".")
    (snapshot / ".gitattributes").touch()
    use = open_store().enter(source_of(snapshot))
    assert files_of(use.path) == {"config.json": b"config.json", "model.safetensors": b"model.safetensors"}
    assert not (use.path / "model.safetensors").is_symlink()
    use.leave()


def test_other_formats_are_copied_where_there_is_no_usual_one(model):
    (model / "pytorch_model.bin").write_bytes(b"weights")
    assert "pytorch_model.bin" not in {file.name for file in source_of(model).files}
    (model / "model.safetensors").unlink()
    (model / "extra" / "adapter.safetensors").touch()
    assert "pytorch_model.bin" in {file.name for file in source_of(model).files}


def test_what_is_no_file_is_not_copied(model):
    before = source_of(model).files
    os.mkfifo(model / "pipe")
    (model / "link").symlink_to("pipe")
    (model / "zero").symlink_to("/dev/zero")
    assert source_of(model).files == before


def test_a_file_that_becomes_a_pipe_makes_nobody_wait(model, disk, open_store):
    source = source_of(model)
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    with pytest.raises(OSError, match="Illegal seek"):
        open_store().enter(source)
    assert names(disk) == []


def test_a_name_that_is_no_utf8_is_said(model):
    (model / os.fsdecode(b"\xff.safetensors")).touch()
    with pytest.raises(StagingError, match=r"xff\.safetensors' is no UTF-8"):
        source_of(model)


def test_links_that_lead_everywhere_come_to_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MOST_FILES", 100)
    for name in "abcdef":
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "file").touch()
        for other in "abcdef":
            (tmp_path / "model" / name / other).symlink_to(f"../{other}")
    with pytest.raises(StagingError, match="has more than 100 files"):
        source_of(tmp_path / "model")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StagingError, match="cannot read"):
        source_of(tmp_path / "loop")


def test_a_manifest_that_cannot_be_written_leaves_nothing(model, disk, monkeypatch, open_store):
    def fail(path, text):
        raise RunDirectoryError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(stores, "write_atomic", fail)
    with pytest.raises(StagingError, match="No space left"):
        open_store().enter(source_of(model))
    assert names(disk) == []


def test_a_model_with_a_file_missing_is_not_staged(model):
    (model / "model-2.safetensors").symlink_to("nowhere")
    with pytest.raises(StagingError, match=r"model-2\.safetensors: No such file"):
        source_of(model)


def test_a_changed_model_is_another_copy(model, open_store):
    before = source_of(model)
    os.utime(model / "config.json")
    assert source_of(model).key != before.key


def test_the_last_who_leaves_removes_the_copy(model, disk, open_store):
    first, second = (open_store().enter(source_of(model)) for _ in range(2))
    assert (first.has_copied, second.has_copied) == (True, False)
    first.leave()
    assert files_of(second.path) == files_of(model)
    second.leave()
    assert names(disk) == []


def test_a_copy_that_nobody_has_used_is_read_to_the_end_and_a_damaged_one_made_anew(model, disk, open_store, said):
    killed = open_store().enter(source_of(model))
    killed.close()
    use = open_store().enter(source_of(model))
    assert not use.has_copied
    use.close()
    flip_a_byte(use.path / "model.safetensors")
    again = open_store().enter(source_of(model))
    assert again.has_copied and files_of(again.path) == files_of(model)
    copies = f"copies 0.0 GB of {model} to {disk}"
    assert said == [copies, f"the copy in {again.entry.folder} is damaged, and made anew", copies]
    again.leave()


def test_a_damaged_copy_that_is_in_use_is_not_used_by_others(model, disk, open_store):
    use = open_store().enter(source_of(model))
    os.utime(use.path / "config.json", ns=(1_600_000_000_123_456_789,) * 2)  # somebody touches it, and no more
    open_store().enter(source_of(model)).leave()
    flip_a_byte(use.path / "model.safetensors")
    with pytest.raises(StagingError, match=r"is damaged, and another worker uses it"):
        open_store().enter(source_of(model))
    assert use.path.exists()
    use.leave()
    assert names(disk) == []


@pytest.mark.parametrize("what", ["manifest", "file"])
def test_a_copy_with_something_missing_is_made_anew(model, disk, open_store, what):
    left = open_store().enter(source_of(model))
    left.close()
    (disk / f"{source_of(model).key}.json" if what == "manifest" else left.path / "config.json").unlink()
    use = open_store().enter(source_of(model))
    assert use.has_copied and files_of(use.path) == files_of(model)
    use.leave()


def test_a_model_that_changes_while_it_is_copied(model, disk, monkeypatch, open_store):
    source = source_of(model)
    write = transfer._write

    def touch(*given):
        write(*given)
        os.utime(model / "config.json")

    monkeypatch.setattr(transfer, "_write", touch)
    with pytest.raises(StagingError, match=r"config\.json has changed while it was copied"):
        open_store().enter(source)
    assert names(disk) == []


def test_too_little_room(model, disk, monkeypatch, open_store):
    monkeypatch.setattr(stores, "_SPARE", 1 << 60)
    with pytest.raises(StagingError, match=rf"{disk} has [\d.]+ GB free, 0\.0 GB are needed"):
        open_store().enter(source_of(model))
    assert names(disk) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small filesystem")
def test_a_disk_that_fills_up(model, disk, monkeypatch, open_store):
    monkeypatch.setattr(stores, "_SPARE", -(1 << 40))  # it was empty when the room was looked at
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", disk], check=True)
    try:
        with pytest.raises(OSError, match="No space left on device"):
            open_store().enter(source_of(model))
        assert names(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("is_used", [True, False])
def test_what_is_another_hosts_is_left_alone(model, disk, open_store, monkeypatch, is_used):
    elsewhere = open_store().enter(source_of(model))
    if not is_used:
        elsewhere.close()
    monkeypatch.setattr("socket.gethostname", lambda: "n8")
    open_store().sweep(frozenset())
    with pytest.raises(StagingError, match=r"\.lock is of .*: expected a disk of this host alone"):
        open_store().enter(source_of(model))
    assert files_of(elsewhere.path) == files_of(model)
    elsewhere.close()


def test_who_gives_up_leaves_nothing(model, disk, open_store):
    class EndingError(Exception):
        pass

    def pause(_seconds):
        raise EndingError

    with pytest.raises(EndingError):
        open_store(pause).enter(source_of(model))
    assert names(disk) == []


def test_what_nobody_uses_is_swept_away(model, disk, open_store):
    others = [model.parent / name for name in ("used", "left", "kept")]
    for other in others:
        other.mkdir()
        (other / "config.json").write_text(other.name)
    used, left, kept = (open_store().enter(source_of(other)) for other in others)
    left.close()
    kept.close()
    (disk / ("a" * 16 + ".part")).mkdir()
    (disk / "somebody's").mkdir()
    open_store().sweep(frozenset({source_of(others[2]).key}))
    assert used.path.exists() and kept.path.exists() and not left.path.exists()
    stems = {name.partition(".")[0] for name in names(disk)}
    assert stems == {"somebody's", source_of(others[0]).key, source_of(others[2]).key}
    used.leave()


@pytest.fixture
def start_copier(model, disk):
    started = []

    def start(halts: str = "") -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", COPIER, str(model), str(disk), halts]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def outcome(copier: subprocess.Popen[str]) -> str:
    """What a copier says last, once it uses a copy."""
    assert copier.stdout is not None
    lines = (line.partition(" /")[0] for line in copier.stdout)
    return next(line for line in lines if line in ("has copied", "shares"))


@pytest.mark.process
def test_one_copies_while_the_other_waits_and_takes_over_where_it_is_killed(model, disk, start_copier):
    first = start_copier("halts")
    assert first.stdout.readline().startswith("copies")
    assert first.stdout.readline() == "halted\n"
    second = start_copier()
    assert second.stdout.readline().startswith(f"waits for another worker of this node, which copies {model} to {disk}")
    assert (disk / f"{source_of(model).key}.part").is_dir()
    first.send_signal(signal.SIGKILL)
    third = start_copier()
    assert sorted(map(outcome, (second, third))) == ["has copied", "shares"]
    second.communicate("")
    copied = disk / source_of(model).key
    assert files_of(copied / str(model).lstrip("/")) == files_of(model)
    third.communicate("")
    assert names(disk) == []


@pytest.mark.process
def test_a_killed_user_leaves_a_copy_without_a_lock(model, disk, open_store, start_copier):
    user = start_copier()
    assert outcome(user) == "has copied"
    open_store().sweep(frozenset())
    assert names(disk) != [], "it is in use"
    user.kill()
    user.wait()
    open_store().sweep(frozenset())
    eventually(lambda: names(disk) == [])
