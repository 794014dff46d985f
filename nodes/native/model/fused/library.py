"""Compiles kernels/ for this machine's CPU, once per CPU type into the cache, and loads it with ctypes.

The library has no OpenMP of its own: it joins the threads that PyTorch has, whose runtime is in the process already.
Two runtimes would spin against each other for the same cores.
"""

import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from .....core.errors import UntrustedFileError
from .....core.machine.libraries import OPENMP, loaded
from .....core.machine.readings import cpu_flags
from .....core.trust import PRIVATE_FILE, make_private_folder, open_trusted
from . import cache
from .structs import Pointer, check_structs

SOURCES = Path(__file__).with_name("kernels")
# Fused multiply-adds are written as such where they are meant. The compiler must not make more of them: bits would
# depend on how it unrolled a loop.
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fPIC", "-fopenmp")
_TIMEOUT_S = 120
_LEFTOVER_S = 3 * _TIMEOUT_S  # longer than both runs of the compiler
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
    if found is None or missing():
        return None
    return cache.place("kernels", f"{_key(found)}.so")


def missing() -> str:
    """What this machine lacks for the library; empty where `place` has a path."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "this CPU has no AVX2"
    return "" if _compiler() else "there is no g++ on PATH"


def compile_to(path: Path, flags: Sequence[str] = FLAGS) -> None:
    """Make the library at `path`, in seconds. Raises CompileError, OSError (the place cannot be written)."""
    found = _compiler()
    if found is None:
        raise CompileError("there is no g++")
    make_private_folder(path.parent)
    _sweep(path.parent)
    # A folder for each: several ranks may compile at once.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        object, made = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        _run(found, *flags, "-c", str(SOURCES / "kernels.cpp"), "-o", str(object), scratch=folder)
        _run(found, "-shared", str(object), "-o", str(made), scratch=folder)  # without OpenMP's own library: see above
        made.write_bytes(_with_checksum(made.read_bytes()))
        made.chmod(PRIVATE_FILE)
        cache.put(made, path)


def _sweep(folder: Path) -> None:
    """Remove what engines have left that were killed while they compiled."""
    for leftover in folder.glob(".*.so.*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(leftover, ignore_errors=True)


def is_whole(path: Path) -> bool:
    """Whether `path` holds a library that `load` would take. Why one is refused is printed to stderr."""
    return checksum(path) is not None


def checksum(path: Path) -> str | None:
    """The SHA-256 of the library at `path`; None where there is none, or one that is damaged or not trusted."""
    try:
        with open_trusted(path) as file:
            return _checksum_of(file.read())
    except FileNotFoundError:
        return None
    except (OSError, UntrustedFileError) as error:
        cache.say_once(f"a compiled library is not loaded: {error}")
        return None


def load(path: Path) -> ctypes.CDLL:
    """Load the library at `path` and declare its functions.

    Raises OSError where it is damaged or does not load, UntrustedFileError, EngineError where its structs are not those
    of structs.py.
    """
    for runtime in loaded(OPENMP):
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    with open_trusted(path) as file:
        if _checksum_of(file.read()) is None:  # one that was cut off would kill this process
            raise OSError(f"{path} is damaged")
        # What was checked is what is loaded. The descriptor stays open: the linker knows a library by its name, and
        # would take another file of the same number for this one.
        library = ctypes.CDLL(f"/proc/self/fd/{os.dup(file.fileno())}")
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    library.describe_structs.restype = ctypes.c_char_p
    check_structs(library.describe_structs().decode())
    return library


def _with_checksum(library: bytes) -> bytes:
    """The library with its SHA-256 behind it, where the dynamic linker does not look."""
    return library + hashlib.sha256(library).digest()


def _checksum_of(data: bytes) -> str | None:
    """The checksum behind a library, as hex; None where it is wrong."""
    found = data[-_CHECKSUM_BYTES:]
    return found.hex() if data == _with_checksum(data[:-_CHECKSUM_BYTES]) else None


def _compiler() -> str | None:
    """A compiler that calls OpenMP as PyTorch's runtime wants it: `$CXX` if that is GCC's, else g++."""
    command = os.environ.get("CXX", "g++")
    name = Path(command).name
    return shutil.which(command) if "g++" in name and "clang" not in name else shutil.which("g++")


def _run(*command: str, scratch: str | None = None) -> str:
    """What `command` prints. Its temporary files go into `scratch`: others may be able to write TMPDIR."""
    env = None if scratch is None else {**os.environ, "TMPDIR": scratch}
    try:
        return subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=_TIMEOUT_S, env=env
        ).stdout
    except subprocess.CalledProcessError as error:
        raise CompileError(f"{command[0]} fails: {error.stderr.strip()[-400:]}") from error
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{command[0]} takes more than {_TIMEOUT_S} s") from error


def _key(compiler: str) -> str:
    """A name for the library that these sources, this compiler and this CPU's instructions make."""
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir()))
    parts = (sources, _run(compiler, "--version"), " ".join(sorted(cpu_flags())), " ".join(FLAGS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
