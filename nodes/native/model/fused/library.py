"""kernels/ as a library of this machine: compiled once per CPU type, kept in the user's cache, called by ctypes.

The library has no OpenMP of its own: it joins the threads that PyTorch has, whose runtime is in the process already.
Two runtimes would spin against each other for the same cores.
"""

import ctypes
import enum
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

SOURCES = Path(__file__).with_name("kernels")
# Fused multiply-adds are written as such where they are meant. The compiler must not make more of them: bits would
# depend on how it unrolled a loop.
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fPIC", "-fopenmp")
_TIMEOUT_S = 120

Pointer = ctypes.c_void_p
_Int, _Long = ctypes.c_int32, ctypes.c_int64


class Matrix(ctypes.Structure):
    """See kernels/model.h, as for all structures here."""

    _fields_ = [
        ("codes", Pointer), ("affine", Pointer), ("bias", Pointer), ("order", Pointer),
        ("outputs", _Int), ("inputs", _Int), ("group", _Int), ("bits", _Int),
    ]  # fmt: skip


class CacheKind(enum.IntEnum):
    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class Layer(ctypes.Structure):
    _fields_ = [
        ("qkv", Matrix), ("o", Matrix), ("gate_up", Matrix), ("down", Matrix),
        ("input_norm", Pointer), ("post_norm", Pointer), ("q_norm", Pointer), ("k_norm", Pointer),
        ("cache", Pointer), ("cache_scales", Pointer), ("window", ctypes.c_int64),
    ]  # fmt: skip


class Model(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(Layer)), ("cos", Pointer), ("sin", Pointer),
        ("hidden", _Int), ("inner", _Int), ("heads", _Int), ("kv_heads", _Int), ("head_dim", _Int),
        ("block_size", _Int), ("cache_kind", _Int), ("eps", ctypes.c_float),
    ]  # fmt: skip


class Step(ctypes.Structure):
    _fields_ = [
        ("rows", _Int), ("single", _Int), ("blocks", _Int), ("threads", _Int), ("table_width", _Int),
        ("positions", Pointer), ("sequence", Pointer), ("tables", Pointer),
        ("split_start", Pointer), ("block_rows", Pointer),
        ("x", Pointer), ("qkv", Pointer), ("attention", Pointer), ("partial", Pointer), ("inner", Pointer),
        ("codes", Pointer), ("scales", Pointer),
        ("seen", Pointer), ("slots", Pointer), ("log_sums", Pointer),
    ]  # fmt: skip


class Waits(ctypes.Structure):
    """See kernels/shared_memory.h, as for those that follow."""

    _fields_ = [("ended", Pointer), ("spin_ns", _Long), ("seconds", ctypes.c_double), ("lost", _Int)]


class Sum(ctypes.Structure):
    _fields_ = [
        ("waits", ctypes.POINTER(Waits)), ("arrived", Pointer), ("slots", Pointer), ("slot", _Long),
        ("rank", _Int), ("ranks", _Int), ("meetings", ctypes.c_uint32), ("pieces", ctypes.c_uint32),
    ]  # fmt: skip


class Link(ctypes.Structure):
    _fields_ = [
        ("waits", ctypes.POINTER(Waits)), ("filled", Pointer), ("emptied", Pointer), ("slots", Pointer),
        ("slot", _Long), ("depth", ctypes.c_uint32), ("messages", ctypes.c_uint32),
    ]  # fmt: skip


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
    """The compiler does not make the library; it says why."""


def place() -> Path | None:
    """Where the library lies, or will lie once `compile_to` has made it; None: this machine cannot have one."""
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
        os.replace(beside, path)
    finally:
        for left in (beside, object):
            left.unlink(missing_ok=True)


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`. Raises OSError where it does not load."""
    for runtime in loaded(OPENMP):
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


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
    sources = "".join(path.read_text() for path in sorted(SOURCES.iterdir()))
    parts = (sources, _run(compiler, "--version"), " ".join(sorted(cpu_flags())), " ".join(FLAGS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
