"""`slurminfer quantize`: in this process, as one task of a job step, or as a Slurm job that is followed."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import msgspec

from ...core import files
from ...core.files import read_json, write_atomic
from ...core.job import JobPhase, JobRequest, JobStatus, Launcher, RequeueableEntry
from ...core.machine.pytorch import import_pytorch
from ...core.paths import jobs_root, make_home
from ...core.processes.process import accept_any_text
from ...core.processes.python import module_argv
from ...core.slurm_env import task_count, task_rank
from ...core.spec.job import JobSpec
from ...quant.awq.options import AwqOptions
from ...quant.awq.workspace import WorkShare, Workspace
from ...quant.checkpoint.config import read_config
from ...quant.progress import Progress
from ..launch.follow import no_result, until_ended
from ..launch.request import request_of

Backend = Literal["native", "autoawq"]


@dataclass(frozen=True, kw_only=True)
class QuantizeEntry(RequeueableEntry):
    """One quantization. As a Slurm job it runs once per node, and the nodes share the layers."""

    model: Path  # a model directory
    out: Path
    options: AwqOptions
    backend: Backend = "native"
    umask: int = field(default_factory=files.current_umask)
    evaluate_on: str | None = None  # a text to evaluate the result with, by the first task
    windows: int | None = None  # of that text; by default what `evaluate` takes

    def __call__(self) -> None:
        """Quantize, with progress on standard error. Raises ModelError, EngineError, CommandError."""
        from ..terminal.progress import model_progress

        accept_any_text()
        os.umask(self.umask)  # a job of ours has one that closes its files; the output is the user's
        with model_progress() as progress:
            run(self, part_here(), progress)

    def argv(self) -> Sequence[str]:
        """The command line that quantizes with the same options."""
        argv = module_argv("slurminfer", "quantize", str(self.model), str(self.out), f"--backend={self.backend}")
        given = ((option.name, getattr(self.options, option.name)) for option in fields(self.options))
        argv += [f"--{name.replace('_', '-')}={value}" for name, value in given if value is not None]
        if self.evaluate_on is not None:
            argv += ["--evaluate", f"--text={self.evaluate_on}"]
        return argv if self.windows is None else [*argv, f"--windows={self.windows}"]


def part_here(environ: Mapping[str, str] = os.environ) -> WorkShare:
    """The share of this process: that of its task in a job step of several tasks, else all."""
    tasks = task_count(environ)
    return WorkShare(task_rank(environ), tasks) if tasks > 1 else WorkShare()


def run(entry: QuantizeEntry, part: WorkShare, progress: Progress) -> None:
    """Quantize here. A finished output is left as it is: a job may be sent back to the queue when all is done."""
    if entry.out.is_dir():
        if part.index == 0:
            Workspace(entry.out).remove()
    elif entry.backend == "native":
        import_pytorch()
        from ...quant.awq.quantize import quantize

        quantize(entry.model, entry.out, entry.options, progress, part)
    elif part.index == 0:
        _quantize_with_autoawq(entry, progress)
    if entry.evaluate_on is not None and part.index == 0:
        from ..evaluate.evaluate import evaluate

        evaluate(entry.model, entry.out, text=entry.evaluate_on, windows=entry.windows, progress=progress)


def request(entry: QuantizeEntry, spec: JobSpec) -> JobRequest:
    """The job that does it. Pure."""
    return request_of(
        spec,
        name=f"quantize-{_word(entry.out.name)}",
        role="quantize",
        entry=entry,
        log_folder=_folder(entry.out),
        time_s=spec.time_s,
        nodes=spec.nodes,
        gpus_per_node=spec.gpus_per_node,
        signal_s=min(60, spec.time_s // 2),
    )


def submit(entry: QuantizeEntry, spec: JobSpec, launcher: Launcher) -> str:
    """The id of the job that works on this output: one that lives already, else a new one. Raises SlurmError."""
    record = _folder(entry.out) / "job.json"
    known = read_json(record)
    if known is not None and launcher.observe([known["id"]])[known["id"]].phase.is_living:
        return str(known["id"])
    make_home()
    job_id = launcher.submit(request(entry, spec))
    write_atomic(record, msgspec.json.encode({"id": job_id, "out": str(entry.out)}).decode())
    return job_id


def follow(job_id: str, entry: QuantizeEntry, launcher: Launcher, progress: Progress) -> None:
    """Wait until the job has ended; `progress` hears of it. Raises SlurmError that says why it failed."""
    workspace, layers = Workspace(entry.out), read_config(entry.model).num_layers
    status = until_ended(job_id, launcher, lambda seen: _show(seen, workspace, layers, progress))
    if not entry.out.is_dir():
        raise no_result(status, _folder(entry.out))
    progress("quantize", layers, layers)


def _show(status: JobStatus, workspace: Workspace, layers: int, progress: Progress) -> None:
    if status.phase is not JobPhase.RUNNING:
        progress(f"job {status.state.lower()}" + (f" ({status.reason})" if status.reason else ""), 0, 0)
    elif workspace.out.is_dir():
        progress("evaluate", 0, 0)
    else:
        progress("quantize", workspace.layers_done(), layers)


def _quantize_with_autoawq(entry: QuantizeEntry, progress: Progress) -> None:
    from ...quant.awq.calibration import calibration_tokens
    from ...quant.awq.options import choose_group_size
    from ...quant.legacy import autoawq

    options = entry.options
    group_size = choose_group_size(read_config(entry.model), options.group_size)
    samples = calibration_tokens(
        entry.model, options.calibration, options.samples, options.sample_length, progress
    ).tolist()
    autoawq.quantize(entry.model, entry.out, samples, group_size, progress)


def _folder(out: Path) -> Path:
    """Where the job keeps its logs; the output's own directory must not exist before it is whole."""
    absolute = str(out.absolute())
    return jobs_root() / f"quantize-{_word(out.name)}-{hashlib.sha256(absolute.encode()).hexdigest()[:8]}"


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
