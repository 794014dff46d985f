"""The processors' own energy counters (RAPL), as Linux shows them: powercap/intel-rapl, of AMD's processors too.

Since Linux 5.10 only root may read them, unless the administrators have changed that: they leak what neighbours compute
(CVE-2020-8694).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# A counter that was set back looks like one that has begun anew. No processor draws so much.
_MOST_WATTS = 5_000.0
_MICRO = 1e-6
_MOST_DIGITS = 20  # of 64 bits


class Rapl:
    """Energy of the node's processors, and of their memory where that is counted apart, times a share.

    A counter begins anew after some minutes at full power, so it must be read more often.

    Args:
        share: of the energy that counts, 0 to 1.
        root: where the kernel shows the counters.
        clock: seconds, monotonic.
    """

    def __init__(self, share: float, root: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._zones = [_Zone(path) for path in _zones(root)]
        self._read_at, self._joules = clock(), 0.0

    def joules(self) -> float | None:
        """As `Counter`. Where one zone cannot be read, nothing is known of the whole."""
        if not self._zones or any(zone.last is None for zone in self._zones):
            return None
        now = self._clock()
        most = _MOST_WATTS * (now - self._read_at)
        self._read_at = now
        for zone in self._zones:
            passed = zone.advance()
            self._joules += passed if passed <= most else 0.0
        return self._joules * self._share


class _Zone:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._range = _number(path / "max_energy_range_uj") or 0
        self.last = _number(path / "energy_uj")

    def advance(self) -> float:
        """Joules since the last reading; those of a reading that fails count at the next one."""
        now = _number(self._path / "energy_uj")
        if now is None or self.last is None:
            return 0.0
        passed = now - self.last if now >= self.last else max(0, self._range - self.last) + now
        self.last = now
        return passed * _MICRO


def _zones(root: Path) -> Iterator[Path]:
    """Processors ("package-0"), and their memory; what is inside of a package, or counts the whole machine, is not."""
    for path in sorted(root.glob("intel-rapl:*")):
        name = _text(path / "name")
        if name.startswith("package") or name == "dram":
            yield path


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
