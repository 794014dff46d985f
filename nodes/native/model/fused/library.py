"""Compiles kernels/ for this machine's CPU, once per CPU type into the user's cache, and loads it with ctypes.

The library has no OpenMP of its own: it joins the threads that PyTorch has, whose runtime is in the process already.
Two runtimes would spin against each other for the same cores.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from .....core.machine.libraries import OPENMP, loaded
from .....core.machine.readings import cpu_flags
from .....core.paths import home
from .structs import Pointer, check_structs

SOURCES = Path(__file__).with_name("kernels")
# Fused multiply-adds are written as such where they are meant. The compiler must not make more of them: bits would
# depend on how it unrolled a loop.
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fPIC", "-fopenmp")
_TIMEOUT_S = 120
_CHECKSUM_BYTES = 32

_Int, _Long = ctypes.c_int32, ctypes.c_int64
_FUNCTIONS: dict[str, Sequence[type]] = {
    "run_layers": (Pointer, Pointer, _Int, Pointer, Pointer),
    "run_part": (Pointer, Pointer, _Int, _Int, Pointer),
    "run_qkv": (Pointer, Pointer, _Int),
    "run_attention": (Pointer, Pointer, _Int),
    "run_output": (Pointer, Pointer, _Int, Pointer),
    "run_head": (Pointer, Pointer, Pointer, Pointer, _Int, Pointer, Pointer),
    "run_linear": (Pointer, Pointer, Pointer, Pointer),
    "sum_over": (Pointer, Pointer, _Long, _Int, _Int),
    "post": (Pointer, Pointer, _Long),
    "fetch": (Pointer, Pointer, _Long),
}


class CompileError(Exception):
    """The compiler failed. The message is the end of what it printed."""


def place() -> Path | None:
    """The path of the library, which `compile_to` makes; None where there is no g++, or a CPU without AVX2."""
    found = _compiler()
    if found is None or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    return home() / "kernels" / f"{_key(found)}.so"


def compile_to(path: Path, flags: Sequence[str] = FLAGS) -> None:
    """Make the library at `path`, in seconds. Raises CompileError, OSError (the place cannot be written)."""
    found = _compiler()
    if found is None:
        raise CompileError("there is no g++")
    beside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    object = beside.with_name(f"{beside.name}.o")  # several ranks may compile at once
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run(found, *flags, "-c", str(SOURCES / "kernels.cpp"), "-o", str(object))
        _run(found, "-shared", str(object), "-o", str(beside))  # without OpenMP's own library: see above
        beside.write_bytes(_with_checksum(beside.read_bytes()))
        os.replace(beside, path)
    finally:
        for left in (beside, object):
            left.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether `path` holds what `compile_to` has written: a library that was cut off would kill who loads it."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return data == _with_checksum(data[:-_CHECKSUM_BYTES])


def load(path: Path) -> ctypes.CDLL:
    """Load the library at `path` and declare its functions.

    Raises OSError where it does not load, EngineError where its structs are not those of structs.py.
    """
    for runtime in loaded(OPENMP):
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    library.describe_structs.restype = ctypes.c_char_p
    check_structs(library.describe_structs().decode())
    return library


def _with_checksum(library: bytes) -> bytes:
    """The library with its SHA-256 behind it, where the dynamic linker does not look."""
    return library + hashlib.sha256(library).digest()


def _compiler() -> str | None:
    """A compiler that calls OpenMP as PyTorch's runtime wants it: `$CXX` if that is GCC's, else g++."""
    command = os.environ.get("CXX", "g++")
    name = Path(command).name
    return shutil.which(command) if "g++" in name and "clang" not in name else shutil.which("g++")


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
    except subprocess.CalledProcessError as error:
        raise CompileError(f"{command[0]} fails: {error.stderr.strip()[-400:]}") from error
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{command[0]} takes more than {_TIMEOUT_S} s") from error


def _key(compiler: str) -> str:
    """A name for the library that these sources, this compiler and this CPU's instructions make."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir()))
    parts = (sources, _run(compiler, "--version"), " ".join(sorted(cpu_flags())), " ".join(FLAGS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
