"""AWQ of a whole model: layer by layer, restartable after each, in one process or in several that share a directory.

With several parts, each first runs its share of the samples through all layers up to where the last part begins, and
leaves behind what goes into the first layer of every part. Then each part quantizes its own layers with all samples.
That works because AWQ calibrates every layer on what the unquantized layers before it put out. The first part puts
the checkpoint together.
"""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...core.errors import EngineError, ModelError
from ...core.machine.cpus import allowed_cpus
from ...core.machine.memory import available_bytes
from ..checkpoint.config import read_config
from ..progress import Progress
from .calibrate import Calibration, memory_bytes
from .calibration import calibration_tokens
from .export import checkpoint_dtype, export, output_bytes
from .layer import quantize_layer
from .options import AwqOptions, choose_group_size
from .workspace import WHOLE, Hidden, WorkShare, Workspace

_POLL_S = 1.0
STAGE = "quantize"  # of the progress that counts layers


def quantize(model: Path, out: Path, options: AwqOptions, progress: Progress, part: WorkShare = WHOLE) -> None:
    """Write an AWQ checkpoint of the model directory `model` as the new directory `out`.

    Whatever stops it, `out` is whole or not there, and the same call goes on behind the last finished layer. All
    parts must be given the same model, output and options. `progress` hears of finished layers as STAGE.
    Raises ModelError (unsuitable model or text, another plan unfinished, no space left), EngineError (device, memory).
    """
    with _full_disk_named(out), torch.inference_mode():
        _Quantization(model, out, options, progress, part).run()


class _Quantization:
    def __init__(self, model: Path, out: Path, options: AwqOptions, progress: Progress, part: WorkShare) -> None:
        config = read_config(model)
        self._group_size = choose_group_size(config, options.group_size)
        if options.sample_length > config.context_length:
            raise ModelError(
                f"sample_length = {options.sample_length}: the model has max_position_embeddings = "
                f"{config.max_position_embeddings}"
            )
        tokens = calibration_tokens(model, options.calibration, options.samples, options.sample_length, progress)
        torch.set_num_threads(options.threads or allowed_cpus().cores)
        self._calibration = Calibration(model, config, tokens, _device(options))
        self._workspace = Workspace(out)
        self._options, self._progress, self._part = options, progress, part
        self._layers = config.num_layers

    def run(self) -> None:
        self._check_memory()
        self._workspace.open(self._plan())
        self._check_space()
        with self._workspace.locked(self._part):
            self._prepare()
            self._quantize_layers()
            if self._part.index == 0:
                self._wait_for("layers of other parts", lambda: self._workspace.layers_done() == self._layers)
                export(self._calibration, self._workspace, self._description(), self._progress)

    def _plan(self) -> dict[str, Any]:
        model = self._calibration.model
        return {
            "version": 1,
            "model": str(model),
            "weights": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(model.glob("*.safetensors"))],
            "group_size": self._group_size,
            "samples": self._options.samples,
            "sample_length": self._options.sample_length,
            "calibration": hashlib.sha256(self._calibration.tokens.numpy().tobytes()).hexdigest(),
            "device": self._calibration.device.type,
            "parts": self._part.count,
        }

    def _description(self) -> dict[str, Any]:
        return {
            "version": 1,
            "method": "awq",
            "bits": 4,
            "group_size": self._group_size,
            "model": self._calibration.model.name,
            "calibration": {
                "text": self._options.calibration,
                "samples": self._options.samples,
                "length": self._options.sample_length,
            },
        }

    def _prepare(self) -> None:
        """Run this part's samples up to the first layers of all parts."""
        starts = self._starts()
        slices = [self._workspace.hidden_slice(start, self._part) for start in starts]
        if all(slice.exists() for slice in slices):
            return
        current = self._workspace.hidden_slice(0, self._part)
        self._calibration.embed(self._part, current)
        for index in range(starts[-1]):
            self._progress("calibrate", index, starts[-1])
            into = self._workspace.hidden_slice(index + 1, self._part)
            self._calibration.forward(index, self._calibration.layer(index), current, into)
            if index not in starts:
                current.remove()
            current = into

    def _quantize_layers(self) -> None:
        for index in self._part.range_of(self._layers):
            self._progress(STAGE, self._workspace.layers_done(), self._layers)
            if not self._workspace.has_layer(index):
                self._quantize_layer(index)
        self._progress(STAGE, self._workspace.layers_done(), self._layers)

    def _quantize_layer(self, index: int) -> None:
        began = time.monotonic()
        source, statistics = self._source(index), self._calibration.new_statistics()
        last = index + 1 == self._part.range_of(self._layers).stop
        tensors = self._calibration.layer(index)
        into = None if last else self._workspace.hidden(index + 1)
        self._calibration.forward(index, tensors, source, into, statistics)
        dtype = checkpoint_dtype(self._calibration)
        layer = quantize_layer(self._calibration.config, tensors, statistics, self._group_size, dtype)
        report = {"index": index, "seconds": round(time.monotonic() - began, 3), "linears": layer.report()}
        self._workspace.save_layer(index, layer.tensors, report)
        self._workspace.hidden(index).remove()

    def _source(self, index: int) -> Hidden:
        """The inputs of a layer: of this part's own making, or of everybody's where the part begins."""
        own = self._workspace.hidden(index)
        if own.exists():
            return own
        slices = self._workspace.hidden_slices(index, self._part.count)
        if index not in self._starts():
            raise ModelError(f"{self._workspace.path} lacks the inputs of layer {index}: remove it and start again")
        self._wait_for("samples of other parts", slices.exists)
        return slices

    def _starts(self) -> list[int]:
        """The first layer of every part."""
        count = self._part.count
        return [WorkShare(index, count).range_of(self._layers).start for index in range(count)]

    def _wait_for(self, what: str, done: Callable[[], bool]) -> None:
        while not done():
            self._progress(f"wait for {what}", self._workspace.layers_done(), self._layers)
            time.sleep(_POLL_S)

    def _check_memory(self) -> None:
        if self._calibration.device.type != "cpu":
            return
        needed, there = memory_bytes(self._calibration.config, self._options.sample_length), available_bytes()
        if needed > there:
            raise EngineError(
                f"quantizing one layer takes about {needed / 2**30:.1f} GiB of memory, and {there / 2**30:.1f} GiB are "
                f"available here: give the job mem = '{needed // 2**30 + 2}G' or more"
            )

    def _check_space(self) -> None:
        states = self._calibration.tokens.numel() * self._calibration.config.hidden_size * 4
        needed = 2 * states + 2 * output_bytes(self._calibration)
        status = os.statvfs(self._workspace.path)
        if self._workspace.layers_done() == 0 and status.f_bavail * status.f_frsize < needed:
            raise _no_space(self._workspace.out, f"about {needed / 2**30:.1f} GiB are needed")


def _device(options: AwqOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise EngineError("device = 'cuda': this PyTorch sees no CUDA GPU")
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(options.device)


@contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(out, "finished layers are kept") from error
        raise ModelError(f"cannot write {out}: {error.strerror or error}") from error


def _no_space(out: Path, more: str) -> ModelError:
    return ModelError(f"no space left for {out}: {more}; make room and run the same command again")
