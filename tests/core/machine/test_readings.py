"""What the machine says of itself."""

from slurminfer.core.machine.readings import cpu_flags, cpu_name, device_files, peak_bytes, resident_bytes

CPUINFO = """processor\t: 0
model name\t: Some CPU @ 2:1 GHz
flags\t\t: fpu avx2 avx512f
processor\t: 1
model name\t: Another
"""


def test_the_first_processor_names_all(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert cpu_name(path) == "Some CPU @ 2:1 GHz"
    assert cpu_flags(path) == {"fpu", "avx2", "avx512f"}


def test_a_kernel_that_lists_neither_name_nor_flags(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\n")
    assert cpu_name(path)
    assert cpu_flags(path) == frozenset()


def test_memory_is_in_bytes(tmp_path):
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nVmHWM:\t   3000 kB\nVmRSS:\t   2000 kB\n")
    assert (peak_bytes(path), resident_bytes(path)) == (3000 * 1024, 2000 * 1024)
    resident = resident_bytes()  # before the peak, which may rise meanwhile
    assert 1 << 20 < resident <= peak_bytes()


def test_gpus_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert device_files(tmp_path) == [tmp_path / "nvidia2", tmp_path / "nvidia10"]
