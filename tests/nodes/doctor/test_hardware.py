"""What a process sees of processor and GPUs."""

import os

import pytest

from slurminfer.nodes.doctor.hardware import gpus, memory, processor, visible_by
from slurminfer.nodes.doctor.look import look
from slurminfer.nodes.doctor.software import glibc_version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "none"),
        ("", "none"),
        ("0,1", "number"),
        ("GPU-aa,GPU-bb", "uuid"),
        ("MIG-aa", "uuid"),
        ("nvidia0", "other"),
    ],
)
def test_how_gpus_are_named(text, expected):
    assert visible_by(text) == expected


def test_only_gpus_that_can_be_opened_count(tmp_path):
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidia1").mkdir()  # cannot be opened for writing
    (tmp_path / "nvidiactl").touch()
    found = gpus({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path)
    assert (found.device_files, found.visible_devices, found.visible_by) == (1, "1", "number")


def test_numa_domains_are_those_of_the_cpuset(tmp_path):
    cpu = min(os.sched_getaffinity(0))
    for number, cpus in ((0, "900-901"), (1, f"{cpu}")):
        node = tmp_path / f"node/node{number}"
        node.mkdir(parents=True)
        (node / "cpulist").write_text(cpus)
        (node / "meminfo").write_text(f"Node {number} MemTotal:       1024 kB\n")
    found = processor(tmp_path)
    assert found.numa_of_machine == (2, 1)
    (domain,) = found.numa
    assert (domain.number, domain.cpus, domain.memory) == (1, (cpu,), 1 << 20)


def test_memory_is_bounded_by_cgroup_and_slurm(tmp_path):
    for name, text in (
        ("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n"), ("proc/self/cgroup", "0::/job/step\n"),
        ("sys/fs/cgroup/job/memory.max", str(1 << 31)), ("sys/fs/cgroup/job/step/memory.max", "max"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = memory({"SLURM_MEM_PER_NODE": "1024"}, tmp_path)
    assert (found.of_machine, found.cgroup_limit, found.slurm_limit) == (8 << 30, 1 << 31, 1 << 30)
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text(str(1 << 60))  # as good as none
    assert memory({}, tmp_path).cgroup_limit is None


def test_one_look_at_this_machine():
    found = look({}, measure=False)
    assert found.network.host == os.uname().nodename
    assert set(found.processor.cpus) == os.sched_getaffinity(0)
    assert "SLURMINFER_HOME" in {name for one in found.folders for name in one.purpose.split(", ")}


def test_c_libraries_are_compared_by_their_numbers():
    assert glibc_version("glibc 2.9") < glibc_version("glibc 2.36")
    assert glibc_version("") == ()
