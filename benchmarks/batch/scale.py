"""The driver on one CPU, against a stub endpoint on another one: rows/s, memory, and how soon a large batch resumes.

- jsonl, parquet: a whole batch, from and to files of the format. `rows_per_s` is by the time from the first request to
  the command's end, so the reading and writing of files is in it. `stub_per_s` is what the stub endpoint answers to a
  client that does nothing else.
- resume: a batch of 10 million rows of which all but three shards are answered (made by fill.py). `begin_s` is the time
  from the start of the command to the first request of a new batch, which counts all rows; `resume_s` that of the batch
  that goes on; `seconds` the time until the whole output is written. `peak_mib` is VmHWM of the driver.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import GIVEN
from .commands import Ran, cpus, run, slurminfer
from .endpoint import Stub, limit, stub
from .inputs import read_rows, write_numbered, write_numbered_parquet, wrong_of

LEFT = 3  # shards
_ASKED = ("--prompt-column", "text", "--max-tokens", "4")
_WRITERS: dict[str, Callable[[Path, int], Path]] = {"jsonl": write_numbered, "parquet": write_numbered_parquet}


def throughput(folder: Path, format: str, rows: int, load_s: float = 3.0) -> dict[str, Any]:
    """A batch of numbered rows, each answer checked."""
    mine, its = cpus()
    path, output = _WRITERS[format](folder / f"rows.{format}", rows), folder / f"answers.{format}"
    with stub(folder, its) as endpoint:
        found, asked_at = _batch(folder, path, output, endpoint, mine)
        stub_per_s = _limit(endpoint, mine, load_s)
    wrong = wrong_of(read_rows(output), rows)
    if wrong:
        raise RuntimeError(f"{wrong} of {rows} rows are wrong or missing")
    result = {
        "rows": rows,
        "rows_per_s": rows / (found.seconds - asked_at),
        "first_request_s": asked_at,
        "seconds": found.seconds,
        "peak_mib": found.peak_mib,
        "stub_per_s": stub_per_s,
    }
    print(f"scale: {format}: {result}", file=sys.stderr)
    return result


def resume(folder: Path, format: str, rows: int) -> dict[str, Any]:
    """Begin a batch of so many rows, have nearly all of them answered, go on."""
    mine, its = cpus()
    path, output = _WRITERS[format](folder / f"many.{format}", rows), folder / f"many-answers.{format}"
    with stub(folder, its) as endpoint:
        begun, begin_s = _batch(folder, path, output, endpoint, mine, "--limit", "1")
    began = time.monotonic()
    _fill(output)
    filled_s = time.monotonic() - began
    with stub(folder, its) as endpoint:
        found, resume_s = _batch(folder, path, output, endpoint, mine)
        sent = endpoint.asked()["posts"]
    wrong = wrong_of(read_rows(output), rows)
    if wrong:
        raise RuntimeError(f"{wrong} of {rows} rows are wrong or missing")
    result = {
        "rows": rows,
        "sent": sent,
        "begin_s": begin_s,
        "begin_peak_mib": begun.peak_mib,
        "resume_s": resume_s,
        "seconds": found.seconds,
        "peak_mib": found.peak_mib,
        "output_bytes": output.stat().st_size,
        "made_in_s": filled_s,
    }
    print(f"scale: {rows} rows of {format}: {result}", file=sys.stderr)
    return result


def _batch(folder: Path, path: Path, output: Path, endpoint: Stub, cpu: int, *more: str) -> tuple[Ran, float]:
    """The command, and seconds from its start to its first request."""
    env, began = {"SLURMINFER_HOME": str(folder / "home")}, time.time()
    ran = run(slurminfer("batch", path, output, "--endpoint", endpoint.url, *_ASKED, *more), env, cpu=cpu)
    return ran, endpoint.asked()["first_at"] - began


def _fill(output: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks.batch.fill", str(output), str(LEFT)]
    processes = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=GIVEN) for _ in os.sched_getaffinity(0)]
    if any([process.wait() for process in processes]):
        raise RuntimeError("the ledger could not be filled")


def _limit(endpoint: Stub, cpu: int, seconds: float) -> float:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return limit(endpoint.port, seconds)
    finally:
        os.sched_setaffinity(0, mine)
