"""The GPUs of this machine, without asking CUDA: that takes seconds, and memory on each of them."""

from pathlib import Path

DEVICES = Path("/dev")


def device_files(devices: Path = DEVICES) -> list[Path]:
    """Those of NVIDIA's GPUs, in the order of their numbers."""
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    return [devices / f"nvidia{number}" for number in sorted(int(number) for number in numbers if number.isdigit())]
