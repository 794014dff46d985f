"""What this machine and this process have: the processor, memory, GPUs. No PyTorch and no CUDA, which take seconds."""

import platform
from pathlib import Path

DEVICES = Path("/dev")
_CPUINFO, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
_KIB = 1024


def cpu_name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name as the kernel gives it, such as "AMD EPYC 9R14"; the architecture where it gives none."""
    return _first(cpuinfo, "model name") or platform.machine()


def cpu_flags(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """The processor's instruction sets, such as "avx512f"; empty where the kernel does not list them."""
    return frozenset((_first(cpuinfo, "flags") or "").split())


def peak_bytes(status: Path = _STATUS) -> int:
    """Most bytes of main memory that this process has had at once.

    VmHWM of proc(5), not ru_maxrss: that also counts the process that forked this one.
    """
    return _kib(status, "VmHWM") * _KIB


def resident_bytes(status: Path = _STATUS) -> int:
    """Bytes of main memory that this process has now: VmRSS of proc(5)."""
    return _kib(status, "VmRSS") * _KIB


def device_files(devices: Path = DEVICES) -> list[Path]:
    """The device files of NVIDIA's GPUs in the order of their numbers. Asking CUDA would take memory on each."""
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    return [devices / f"nvidia{number}" for number in sorted(int(number) for number in numbers if number.isdigit())]


def _kib(status: Path, name: str) -> int:
    value = _first(status, name)
    assert value is not None, f"{status} has no {name}"
    return int(value.split()[0])


def _first(path: Path, name: str) -> str | None:
    """The value of the first line `name : value`; None if there is none."""
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == name), None)
