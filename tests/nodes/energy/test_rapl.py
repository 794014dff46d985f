"""Reading the processors' energy counters, of files like the kernel's."""

from pathlib import Path

import pytest

from slurminfer.nodes.energy.rapl import Rapl

MOST = 262_143_328_850


class Node:
    """A machine with two packages, memory that is counted apart, cores that are inside of a package, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root, self.now = root, 0.0
        names = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "1:0": "core", "2": "psys"}
        for zone, name in names.items():
            self.put(zone, "name", name)
            self.put(zone, "max_energy_range_uj", str(MOST))
            self.put(zone, "energy_uj", "1000000")

    def put(self, zone: str, file: str, text: str) -> None:
        path = self.root / f"intel-rapl:{zone}" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")

    def rapl(self, share: float = 1.0) -> Rapl:
        return Rapl(share, self.root, lambda: self.now)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_packages_and_memory_count_and_what_is_inside_of_them_does_not(node):
    rapl = node.rapl(share=0.25)
    for zone, joules in {"0": 100, "0:0": 90, "0:1": 20, "1": 40, "1:0": 30, "2": 500}.items():
        node.put(zone, "energy_uj", str(1_000_000 + joules * 1_000_000))
    node.now = 10.0
    assert rapl.joules() == pytest.approx(40.0)


def test_a_counter_that_begins_anew_goes_on(node):
    node.put("1", "energy_uj", str(MOST - 30_000_000))
    rapl = node.rapl()
    node.put("1", "energy_uj", "70000000")
    node.now = 10.0
    assert rapl.joules() == pytest.approx(100.0)


def test_more_than_a_processor_draws_does_not_count(node):
    """As after a sleep of the machine, which sets the counters back."""
    node.put("1", "energy_uj", "200000000")
    rapl = node.rapl()
    node.put("1", "energy_uj", "0")
    node.now = 10.0
    assert rapl.joules() == 0.0


def test_a_zone_that_cannot_be_read_leaves_the_whole_unknown(node):
    """Most kernels let only root read them."""
    (node.root / "intel-rapl:1" / "energy_uj").unlink()
    assert node.rapl().joules() is None


@pytest.mark.parametrize("text", ["", "-1", "nan", "9" * 5000, "\0" * 10, "1 2"])
def test_what_is_no_number_of_64_bits_is_not_known(node, text):
    rapl = node.rapl()
    node.put("0", "energy_uj", text)
    node.now = 10.0
    assert rapl.joules() == 0.0
    assert node.rapl().joules() is None


def test_what_one_reading_has_missed_counts_at_the_next(node):
    rapl = node.rapl()
    (node.root / "intel-rapl:0" / "energy_uj").unlink()
    node.now = 10.0
    assert rapl.joules() == 0.0
    node.put("0", "energy_uj", "51000000")
    node.now = 20.0
    assert rapl.joules() == pytest.approx(50.0)


def test_a_machine_without_counters_has_no_energy(tmp_path):
    assert Rapl(1.0, tmp_path / "powercap").joules() is None
