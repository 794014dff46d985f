"""What a quantization has done so far, on disk beside its output, so that a later run can go on with it.

    .OUT.quantizing/
        plan.json               what is being done: another plan cannot go on with this directory
        part-K.lock             held (flock) by the process that works on part K
        hidden/LAYER            inputs of layer LAYER, float32 [samples, length, hidden_size]
        hidden/LAYER.KofN       the same for the samples of part K, where the layers of one part begin
        layers/LAYER            a finished layer, safetensors; its report stands in the file's metadata
        final/                  the checkpoint while it is being written; renamed to OUT at the very end

Each file gets its name when it is whole. Layers do not depend on how the work is divided.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...core.errors import CorruptModelError, ModelError
from ...core.files import parse_json, read_text, write_atomic
from ...core.locks import Lock, try_lock


@dataclass(frozen=True)
class WorkShare:
    """Which part of a quantization a process does: number `index` (from 0) of `count` processes that divide the work.

    Samples are divided while hidden states are computed, layers while weights are quantized: see `quantize`. "Part K"
    in the workspace's file names is the share with index K.
    """

    index: int = 0
    count: int = 1

    def range_of(self, total: int) -> range:
        """Which of `total` things, samples or layers, fall to this share; two shares differ by one thing at most."""
        return range(self.index * total // self.count, (self.index + 1) * total // self.count)


WHOLE = WorkShare()  # all of it, by one process


class Workspace:
    """The directory of one quantization into `out`."""

    def __init__(self, out: Path) -> None:
        self.out = out.absolute()
        self.path = self.out.with_name(f".{self.out.name}.quantizing")
        self.final = self.path / "final"

    def open(self, plan: Mapping[str, Any]) -> None:
        """Make the directory, or find the one that an earlier run of the same plan has left.

        Raises ModelError where another plan was left, or the output exists.
        """
        if self.out.exists():
            raise ModelError(f"{self.out} exists already: remove it, or choose another name")
        for folder in ("hidden", "layers"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        path = self.path / "plan.json"
        text = read_text(path)
        if text is None:
            write_atomic(path, json.dumps(plan, indent=2), mode=None)
        elif (found := parse_json(path, text)) != plan:
            different = ", ".join(sorted(key for key in {*found, *plan} if found.get(key) != plan.get(key)))
            raise ModelError(
                f"{self.path} holds unfinished work with another {different}: finish it as it was begun, or remove it"
            )

    @contextmanager
    def locked(self, part: WorkShare) -> Iterator[None]:
        """Hold the lock of `part`. Raises ModelError if another process works on it.

        Where the filesystem has no locks this is not noticed.
        """
        with (self.path / f"part-{part.index}.lock").open("a+", encoding="utf-8") as file:
            if try_lock(file) is Lock.BUSY:
                file.seek(0)
                raise ModelError(f"another process ({file.read().strip()}) is quantizing into {self.out}")
            file.truncate(0)
            file.write(f"{os.getpid()} on {os.uname().nodename}\n")
            file.flush()
            yield

    def has_layer(self, index: int) -> bool:
        """Whether layer `index` is finished."""
        return self._layer(index).exists()

    def layers_done(self) -> int:
        """The number of layers that are finished, by whichever part."""
        layers = self.path / "layers"
        return sum(not name.startswith(".") for name in os.listdir(layers)) if layers.is_dir() else 0

    def save_layer(self, index: int, tensors: Mapping[str, torch.Tensor], report: Mapping[str, Any]) -> None:
        """Write a finished layer: its tensors, named as after "model.layers.N.", and its report (JSON)."""
        path = self._layer(index)
        beside = path.with_name(f".{path.name}")
        on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(on_cpu, beside, metadata={"report": json.dumps(report)})
        commit(beside, path)

    def load_layer(self, index: int, name: str) -> torch.Tensor:
        """A tensor of a finished layer. Raises CorruptModelError."""
        with self._opened(index) as file:
            tensor: torch.Tensor = file.get_tensor(name)
            return tensor.clone()

    def layer_report(self, index: int) -> dict[str, Any]:
        """The report of a finished layer. Raises CorruptModelError."""
        with self._opened(index) as file:
            report: dict[str, Any] = json.loads(file.metadata()["report"])
            return report

    def hidden(self, layer: int) -> "Hidden":
        """The inputs of `layer` for all samples."""
        return Hidden([self.path / "hidden" / str(layer)])

    def hidden_slice(self, layer: int, part: WorkShare) -> "Hidden":
        """The inputs of `layer` for the samples of `part`."""
        return Hidden([self.path / "hidden" / f"{layer}.{part.index}of{part.count}"])

    def hidden_slices(self, layer: int, count: int) -> "Hidden":
        """The inputs of `layer` for all samples, as the slices of all `count` parts."""
        slices = (self.hidden_slice(layer, WorkShare(index, count)) for index in range(count))
        return Hidden([path for slice in slices for path in slice.paths])

    def remove(self) -> None:
        """Delete the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _layer(self, index: int) -> Path:
        return self.path / "layers" / f"{index:05}"

    @contextmanager
    def _opened(self, index: int) -> Iterator[Any]:
        path = self._layer(index)
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise CorruptModelError(f"{path} is damaged, remove it and start again: {error}") from error


class Hidden:
    """Hidden states float32 [samples, length, hidden_size] in one file, or in several, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def exists(self) -> bool:
        """Whether all files are there, and thus whole."""
        return all(path.exists() for path in self.paths)

    def read(self, samples: int, length: int, size: int) -> Iterator[torch.Tensor]:
        """Pieces [at most `samples`, length, size], in order. Raises CorruptModelError."""
        sample_bytes = length * size * 4
        for path in self.paths:
            with path.open("rb") as file:
                while piece := file.read(samples * sample_bytes):
                    if len(piece) % sample_bytes:
                        raise CorruptModelError(f"{path} is damaged: remove it and start again")
                    yield torch.frombuffer(bytearray(piece), dtype=torch.float32).view(-1, length, size)

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """A file to put pieces into; it gets its name at the end, if nothing fails."""
        (path,) = self.paths
        beside = path.with_name(f".{path.name}")
        with beside.open("wb") as file:
            yield file
        commit(beside, path)

    def remove(self) -> None:
        """Delete the files that are there."""
        for path in self.paths:
            path.unlink(missing_ok=True)


def put(file: IO[bytes], states: torch.Tensor) -> None:
    """Append hidden states [samples, length, hidden_size] to a file of `Hidden`, as float32."""
    file.write(states.float().cpu().contiguous().numpy().data)


def commit(beside: Path, path: Path) -> None:
    """Give a written file or directory its name, once it is on the disk."""
    for each in [beside, *(beside.iterdir() if beside.is_dir() else ())]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    os.replace(beside, path)
