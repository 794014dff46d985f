"""From PyTorch's operations to the compiled library: at load where it is there, else as soon as it is."""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from .....core.errors import EngineError, SlurminferError, UntrustedFileError
from .....core.machine.memory import available_bytes, give_back_freed
from .....quant.checkpoint.files import stored_bytes
from .....quant.kv import KVFormat
from ...options import EngineOptions
from ..parallel.model_part import ModelPart
from ..runner import Runner
from . import library, store
from .decoder import FusedDecoder, can_fuse
from .parts import DoesNotFitError, Parts, pack_model

_NEEDS = "needs weights of 4 or 8 bits, or dtype bfloat16; lm_head = 'auto'; and a CPU with AVX2, with g++ beside it"
_WORTH_KEEPING_S = 1.0  # of packing; what is quicker need not lie on a disk
_SMALL = 512 * 2**20  # bytes of weights that are held twice while the library is compiled, some 20 seconds
_SPARE = 2  # times the size of the weights: they are packed layer by layer, and the KV cache still grows


class Upgrade:
    """Loads the compiled decoder of one model, now or while the plain decoder already computes."""

    def __init__(
        self,
        options: EngineOptions,
        part: ModelPart,
        context_length: int,
        dtype: torch.dtype,
        format: KVFormat,
        device: torch.device,
    ) -> None:
        """Raises EngineError where the options want the library and it cannot compute this model here."""
        self._options, self._part, self._context_length, self._dtype = options, part, context_length, dtype
        self._path: Path | None = None
        if options.kernels == "compiled" or (options.kernels == "auto" and options.dtype != "float32"):
            fits = can_fuse(part.config, format, device) and options.lm_head == "auto"
            self._path = library.place() if fits else None
            if fits and self._path is None and options.kernels == "auto":
                _say_slower(library.missing())
        if self._path is None:
            self._go_without(_NEEDS)

    @property
    def may_come_later(self) -> bool:
        """Whether the plain decoder is to compute meanwhile.

        Compiling takes as long as packing a large model, and is done beside it: then nothing is gained by holding the
        weights twice.
        """
        return self.must_compile and stored_bytes(self._options.model) < _SMALL

    @property
    def must_compile(self) -> bool:
        """Whether `load` would begin by compiling, which takes seconds."""
        return self._path is not None and not library.is_whole(self._path)

    def load(self) -> FusedDecoder | None:
        """Load the compiled decoder. None if this model or machine cannot have one; a failed compilation is printed.

        Raises EngineError where the options demand the library, CorruptModelError.
        """
        if self._path is None:
            return None
        try:
            with _compiling(self._path if self.must_compile else None):
                parts = self._parts()
            part = self._part
            return FusedDecoder(
                self._path, part.config, parts, self._context_length, part.reduce, part.sequence, part.memory
            )
        except DoesNotFitError as error:
            self._go_without(str(error), error)
            return None
        except (library.CompileError, OSError, UntrustedFileError) as error:
            self._go_without(str(error), error)
            _say_slower(error)
            return None

    def _go_without(self, why: str, cause: Exception | None = None) -> None:
        """Raises EngineError where the options want the library."""
        if self._options.kernels == "compiled":
            raise EngineError(f"kernels = 'compiled': {why}") from cause

    def _parts(self) -> Parts:
        """From the file of the last time, else from the checkpoint. Raises CorruptModelError, DoesNotFitError."""
        config = self._part.config
        place = store.place_of(self._options.model, self._dtype, self._part.name)
        parts = store.read(place, config)
        if parts is not None:
            return parts
        began = time.monotonic()
        parts = pack_model(config, self._part.weights(self._options.model, self._dtype), self._part.shard)
        give_back_freed()
        if time.monotonic() - began > _WORTH_KEEPING_S:
            store.write_later(place, parts)
        return parts

    def start(self, runner: Runner) -> None:
        """Start a thread that loads the compiled decoder and then puts it into `runner`, between two steps."""
        threading.Thread(target=self._replace, args=(runner,), name="upgrade", daemon=True).start()

    def _replace(self, runner: Runner) -> None:
        if available_bytes() < _SPARE * stored_bytes(self._options.model):  # for a while, both decoders are there
            _say_slower("too little memory to change over; start again")
            return
        try:
            with torch.inference_mode():
                fused = self.load()
        except SlurminferError as error:  # the plain decoder has read the same files: they have changed meanwhile
            _say_slower(error)
            return
        if fused is not None:
            fused.attach(runner.cache)
            runner.replace_decoder(fused)


def _say_slower(why: object) -> None:
    """Tell the user, and the agent, which looks for this line (nodes/engines/native.py)."""
    print(f"slower without compiled kernels: {why}", file=sys.stderr, flush=True)


@contextmanager
def _compiling(path: Path | None) -> Iterator[None]:
    """Compile the library at `path`, if there is one to compile, beside what the block does; done at its end.

    Raises CompileError, OSError.
    """
    if path is None:
        yield
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="compile")
    try:
        compiled = pool.submit(library.compile_to, path)
        yield
        compiled.result()
    finally:
        pool.shutdown(wait=False)
