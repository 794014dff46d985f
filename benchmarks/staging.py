"""What checksums cost when weights are copied to a node's disk: staged with and without them, and by `cp`, in turns.

python -m benchmarks.staging /local/scratch --gigabytes 1 --rounds 9

The source lies in the same folder, and is out of the page cache before each copy. All copies end with fsync.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from slurminfer.nodes.staging.source import source_of
from slurminfer.nodes.staging.store import Store

_FILES, _BLOCK = 4, 1 << 24


class NoChecksum:
    """In place of XXH3."""

    def update(self, data: memoryview) -> None:
        """Nothing."""

    def hexdigest(self) -> str:
        """An empty one."""
        return ""


def main() -> None:
    """Print the median of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="on the disk that is measured")
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="staging-", dir=given.folder) as work:
        model, disk = Path(work) / "model", Path(work) / "disk"
        disk.mkdir(0o700)
        write_model(model, int(given.gigabytes * 1e9) // _FILES)
        ways = {"staged": stage, "staged, no checksums": stage_without_checksums, "cp and fsync": cp}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(given.rounds):
            for way, run in ways.items():
                forget(model)
                times[way].append(measure(lambda run=run: run(model, disk)))  # type: ignore[misc]
    for way, found in times.items():
        seconds = [wall for wall, _ in found]
        median, cpu = statistics.median(seconds), statistics.median(cpu for _, cpu in found)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
        print(f"{way}: {given.gigabytes / median:.2f} GB/s, {median:.2f} s ({spread}), {cpu:.2f} s of CPU")


def write_model(folder: Path, size: int) -> None:
    """Files of random bytes, on the disk."""
    folder.mkdir()
    for number in range(_FILES):
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            for start in range(0, size, _BLOCK):
                file.write(os.urandom(min(_BLOCK, size - start)))
            file.flush()
            os.fsync(file.fileno())


def measure(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and those of CPU."""
    began, before = time.monotonic(), _cpu()
    run()
    return time.monotonic() - began, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def stage(model: Path, disk: Path) -> None:
    """Copy as a worker does. Removing the copy is part of it, as with `cp`."""
    Store(disk, time.sleep, lambda _text: None).enter(source_of(model)).leave()


def stage_without_checksums(model: Path, disk: Path) -> None:
    """The same, but nothing is computed."""
    with mock.patch("xxhash.xxh3_128", NoChecksum):
        stage(model, disk)


def cp(model: Path, disk: Path) -> None:
    """Copy with `cp`."""
    subprocess.run(["cp", "-r", model, disk / "copy"], check=True)
    for path in (disk / "copy").iterdir():
        flush(path)
    shutil.rmtree(disk / "copy")


def flush(path: Path) -> None:
    """Let a file's data be on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def forget(model: Path) -> None:
    """Let the page cache have nothing of the source."""
    for path in model.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
