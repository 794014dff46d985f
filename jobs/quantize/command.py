"""`slurminfer quantize`, for a person at a terminal or a job's log."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from ...core.errors import ModelError, UsageError
from ...core.spec.files import load_job
from ...quant.awq.export import REPORT
from ...quant.awq.options import AwqOptions, Device
from ...quant.checkpoint.files import stored_bytes
from ...quant.models import resolve
from ..launch.launchers import launcher_named
from ..terminal.console import stdout
from ..terminal.progress import model_progress
from .job import Backend, QuantizeEntry, follow, part_here, request, run, submit


def quantize(
    model: str,
    out: Path,
    backend: str,
    options: Mapping[str, Any],
    spec_path: Path | None,
    dry_run: bool,
    evaluate_on: str | None,
    windows: int | None = None,
) -> None:
    """Do it here, or as the job of a spec; `options` are those of AwqOptions that were given.

    With `evaluate_on`, the result is evaluated on so many `windows` of that text.

    Raises UsageError, and whatever goes wrong as a SlurminferError.
    """
    entry = QuantizeEntry(
        model=Path(model),
        out=out.absolute(),
        options=_options(options),
        backend=cast(Backend, _one_of("backend", backend, get_args(Backend))),
        evaluate_on=evaluate_on,
        windows=windows,
    )
    if dry_run:
        if spec_path is None:
            raise UsageError("--dry-run prints a job: name its file with --spec")
        print(launcher_named("slurm").render(request(entry, load_job(spec_path))), end="")
        return
    if entry.out.exists():
        raise ModelError(f"{entry.out} exists already: remove it, or choose another name")
    with model_progress() as progress:
        entry = replace(entry, model=resolve(model, progress))
        if spec_path is None:
            run(entry, part_here(), progress)
        else:
            launcher = launcher_named("slurm")
            job_id = submit(entry, load_job(spec_path), launcher)
            stdout.print(f"job {job_id}; it goes on if this command is ended, and the same command follows it again")
            follow(job_id, entry, launcher, progress)
    if part_here().index == 0:
        _print_result(entry)


def _options(given: Mapping[str, Any]) -> AwqOptions:
    if "device" in given:
        _one_of("device", given["device"], get_args(Device))
    return AwqOptions(**given)


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise UsageError(f"{name} = {value!r}: expected one of {', '.join(valid)}")
    return value


def _print_result(entry: QuantizeEntry) -> None:
    before, after = (_megabytes(directory) for directory in (entry.model, entry.out))
    stdout.print(f"{entry.out}: {after:.0f} MB, was {before:.0f} MB")
    if (entry.out / REPORT).exists():
        stdout.print(f"errors by layer  {entry.out / REPORT}")
    if entry.evaluate_on is None:
        stdout.print(f"look at it with  slurminfer evaluate {entry.out} --against {entry.model}")
        return
    from ..evaluate.evaluation import read_evaluation
    from ..evaluate.table import print_evaluation

    print_evaluation(read_evaluation(entry.out), as_json=False)


def _megabytes(model: Path) -> float:
    return stored_bytes(model) / 1e6
