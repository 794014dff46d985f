"""Quantizing with AutoAWQ, in a process of the legacy environment's interpreter."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import CommandError, ModelError
from ...core.logs.text import root_cause, tail
from ...core.processes.process import describe_exit
from ..progress import Progress

VARIABLE = "SLURMINFER_LEGACY_PYTHON"
_SCRIPT = Path(__file__).with_name("autoawq_quantize.py")
_OURS = Path(__file__).resolve().parents[2] / ".venv-legacy/bin/python"


def quantize(
    model: Path,
    out: Path,
    samples: Sequence[Sequence[int]],
    group_size: int,
    progress: Progress,
    python: Path | None = None,
) -> None:
    """Write the model directory `model`, quantized to 4 bits, as the new directory `out`.

    `samples` are token ids to calibrate on; those that are shorter than the longest are joined and cut to its length.
    `progress` is called with the number of layers done and of all. `python` is as in `interpreter`.

    Raises ModelError (no interpreter, no samples, `out` exists or cannot be written), CommandError (AutoAWQ failed).
    """
    python = interpreter(python)
    if not any(samples):
        raise ModelError("AutoAWQ has no tokens to calibrate on: the samples are empty")
    if out.exists():
        raise ModelError(f"{out} exists already")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "samples.json"
            file.write_text(json.dumps([list(sample) for sample in samples]), encoding="utf-8")
            argv = [str(python), str(_SCRIPT), str(model), str(beside), "--samples", str(file)]
            argv += ["--group-size", str(group_size), "--threads", str(len(os.sched_getaffinity(0)))]
            _run(argv, Path(scratch) / "log", progress)
        beside.rename(out)
    except OSError as error:
        raise ModelError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def interpreter(python: Path | None = None) -> Path:
    """The legacy environment's: `python`, else the environment variable VARIABLE, else .venv-legacy beside our sources.

    Raises ModelError where that is no file.
    """
    found = python or Path(os.environ.get(VARIABLE) or _OURS)
    if not found.is_file():
        raise ModelError(
            f"AutoAWQ's interpreter {found} is not there: `make legacy` in slurminfer's sources builds it, "
            f"and {VARIABLE} may name one elsewhere"
        )
    return found


def _run(argv: Sequence[str], log: Path, progress: Progress) -> None:
    """Run the script to its end; it does not outlive this call."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with log.open("w", encoding="utf-8") as stderr, subprocess.Popen(argv, stderr=stderr, **pipes) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                if "layer" in said:
                    progress("quantize", said["layer"], said["layers"])
            process.wait()
        finally:
            process.kill()
    if process.returncode != 0:
        raise _failure(process.returncode, tail(log))


def _failure(returncode: int, said: str) -> CommandError:
    reason = describe_exit(returncode) if returncode < 0 else root_cause(said)
    return CommandError(f"AutoAWQ failed: {reason}", returncode=returncode, stderr=said)
