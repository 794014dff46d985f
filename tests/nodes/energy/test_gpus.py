"""Reading the energy of GPUs, of a driver that the test plays."""

import itertools

import pytest

from slurminfer.core.errors import CommandError
from slurminfer.nodes.energy.gpus import NvmlCounter, SmiCounter, visible_gpus


class Nvml:
    """The part of pynvml that is used. Handles are the devices' names; a counter that is absent is an error."""

    class NVMLError(Exception):
        pass

    def __init__(self, **millijoules: int) -> None:
        self.millijoules = millijoules

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        assert isinstance(index, int)
        return f"gpu{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid.replace("-", "_")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle not in self.millijoules:
            raise self.NVMLError("Not Supported")
        return self.millijoules[handle]


def counting(nvml: Nvml, *devices: str) -> NvmlCounter:
    """Read every 100 s."""
    return NvmlCounter(devices, nvml, itertools.count(0, 100).__next__)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,1", ["0", "1"]),
        ("GPU-8f, 3", ["GPU-8f", "3"]),
        ("MIG-8f", []),  # a part of a GPU has no counter
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_the_job_s_gpus_are_those_that_it_sees(text, names):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": text}) == names
    assert visible_gpus({}) == []


def test_counters_are_in_millijoules_and_count_from_the_start():
    nvml = Nvml(gpu0=5_000_000, GPU_8f=7_000)
    counter = counting(nvml, "0", "GPU-8f")
    nvml.millijoules.update(gpu0=5_090_000, GPU_8f=17_000)
    assert counter.joules() == pytest.approx(100.0)


def test_a_driver_that_has_begun_anew_counts_from_there():
    nvml = Nvml(gpu0=5_000_000)
    counter = counting(nvml, "0")
    nvml.millijoules.update(gpu0=3_000)
    assert counter.joules() == pytest.approx(3.0)


def test_a_gpu_that_does_not_answer_counts_at_the_next_reading():
    nvml = Nvml(gpu0=1_000)
    counter = counting(nvml, "0")
    del nvml.millijoules["gpu0"]
    assert counter.joules() == 0.0
    nvml.millijoules["gpu0"] = 11_000
    assert counter.joules() == pytest.approx(10.0)


def test_more_than_a_board_draws_does_not_count():
    nvml = Nvml(gpu0=1_000)
    counter = counting(nvml, "0")
    for wrong in (2**64 - 1, 1_000):
        nvml.millijoules["gpu0"] = wrong
        assert counter.joules() == pytest.approx(0.0 if wrong > 1_000 else 1.0)


def test_a_gpu_that_does_not_count_has_no_counter():
    with pytest.raises(Nvml.NVMLError):
        NvmlCounter(["0"], Nvml())


class Smi:
    """nvidia-smi and a clock."""

    def __init__(self, said: str) -> None:
        self.said, self.now = said, 0.0
        self.asked: list[list[str]] = []

    def ask(self, argv, *, timeout_s):
        self.asked.append(argv)
        if self.said == "gone":
            raise CommandError("nvidia-smi: command not found")
        return self.said

    def counter(self, *devices: str) -> SmiCounter:
        return SmiCounter(devices, self.ask, lambda: self.now)


def test_samples_of_power_are_added_up():
    smi = Smi("100.0\n300.0\n")
    counter = smi.counter("0", "1")
    assert smi.asked[0][-1] == "--id=0,1"
    smi.said, smi.now = "200.0\n400.0\n", 10.0
    assert counter.joules() == pytest.approx(5000.0)
    smi.now = 20.0
    assert counter.joules() == pytest.approx(11000.0)


def test_a_time_without_samples_does_not_count():
    smi = Smi("100.0\n")
    counter = smi.counter("0")
    smi.said, smi.now = "[N/A]\n", 5.0
    assert counter.joules() == 0.0
    smi.said, smi.now = "nan\n", 10.0
    assert counter.joules() == 0.0
    smi.said, smi.now = "100.0\n", 1000.0
    assert counter.joules() == 0.0
    smi.now = 1010.0
    assert counter.joules() == pytest.approx(1000.0)


@pytest.mark.parametrize("said", ["[Not Supported]\n", "100.0\n", "gone", "nan\n1\n", "inf\n1\n", "-5\n1\n"])
def test_gpus_that_do_not_all_tell_have_no_energy(said):
    assert Smi(said).counter("0", "1").joules() is None
