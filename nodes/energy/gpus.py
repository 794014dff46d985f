"""The energy of a worker's NVIDIA GPUs: their own counters by NVML, or else samples of the power that they draw."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...core.errors import CommandError
from ...core.machine.nvidia import VISIBLE
from ...core.processes import process

_SMI = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")
_SMI_S = 10.0
_LONGEST_S = 120.0  # for a longer time one sample says nothing
_MOST_WATTS = 10_000.0  # of one board: what is said beyond is an error of the driver, as NaN is
_MILLI = 1e-3


class NvmlCounter:
    """The boards' total energy, which GPUs count since Volta.

    Args:
        devices: numbers or UUIDs.
        nvml: the module pynvml, initialized.
        clock: seconds, monotonic.

    Raises pynvml's NVMLError where a GPU is not there or does not count.
    """

    def __init__(self, devices: Sequence[str], nvml: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml, self._clock = nvml, clock
        self._handles = [
            nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)
            for name in devices
        ]
        self._last = [self._millijoules(handle) for handle in self._handles]
        self._at = [clock()] * len(self._handles)
        self._joules = 0.0

    def joules(self) -> float | None:
        """As `Counter`. A counter that the driver has begun anew counts from there; more than boards draw does not."""
        for place, handle in enumerate(self._handles):
            with suppress(self._nvml.NVMLError):  # what it has drawn meanwhile counts at the next reading
                now = self._millijoules(handle)
                passed = (now - self._last[place] if now >= self._last[place] else now) * _MILLI
                at = self._clock()
                self._joules += passed if passed <= _MOST_WATTS * (at - self._at[place]) else 0.0
                self._last[place], self._at[place] = now, at
        return self._joules

    def _millijoules(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


class SmiCounter:
    """The sum over samples of the boards' power, each for half of the time to its neighbours.

    Args:
        devices: numbers or UUIDs.
        ask: runs a command and returns what it prints; raises CommandError.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        devices: Sequence[str],
        ask: Callable[..., str] = process.run,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._argv, self._count = [*_SMI, f"--id={','.join(devices)}"], len(devices)
        self._ask, self._clock = ask, clock
        self._watts, self._at, self._joules = self._power(), clock(), 0.0

    def joules(self) -> float | None:
        """As `Counter`."""
        if self._watts is None:
            return None
        watts, now = self._power(), self._clock()
        if watts is None:
            return self._joules
        if now - self._at <= _LONGEST_S:
            self._joules += (self._watts + watts) / 2 * (now - self._at)
        self._watts, self._at = watts, now
        return self._joules

    def _power(self) -> float | None:
        """Watts of all of them; None where one does not tell, or tells what cannot be."""
        try:
            lines = self._ask(self._argv, timeout_s=_SMI_S).split("\n")
            found = [float(line) for line in lines if line.strip()]
        except (CommandError, ValueError):  # "[N/A]"
            return None
        is_known = len(found) == self._count and all(0 <= watts <= _MOST_WATTS for watts in found)
        return sum(found) if is_known else None


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """The GPUs of this process's job, by number or UUID; none where they are not told, or parts of GPUs (MIG)."""
    names = [name.strip() for name in environ.get(VISIBLE, "").split(",")]
    return names if all(name.isdecimal() or name.startswith("GPU-") for name in names) else []


def gpu_counter(environ: Mapping[str, str]) -> NvmlCounter | SmiCounter | None:
    """The best reader that there is for the GPUs of this process's job."""
    devices = visible_gpus(environ)
    if not devices:
        return None
    try:
        import pynvml
    except ImportError:
        return SmiCounter(devices)
    try:
        pynvml.nvmlInit()
        return NvmlCounter(devices, pynvml)
    except pynvml.NVMLError:
        return SmiCounter(devices)
