"""The KV cache takes its share of what job, cgroup and machine leave."""

import pytest

from slurminfer.core.machine.memory import available_bytes, oom_kills, own_bytes

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """A machine with 8 GiB to spare and no cgroup limits, as files below a root."""

    def write(path, content):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(content))

    write("proc/meminfo", f"MemTotal: 99999999 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    write("proc/self/cgroup", "0::/\n")
    write("proc/self/status", "VmRSS: 0 kB\n")
    write("sys/fs/cgroup/memory.max", "max")
    return tmp_path, write


def available(root, **env):
    return available_bytes(root, env)


def test_without_limits_it_is_what_the_machine_has(machine):
    assert available(machine[0]) == 8 * GIB


def test_a_cgroup_v2_limit_less_its_use_counts_at_any_level(machine):
    root, write = machine
    write("proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    write("sys/fs/cgroup/slurm/job_7/memory.max", 6 * GIB)
    write("sys/fs/cgroup/slurm/job_7/memory.current", GIB)
    assert available(root) == 5 * GIB


def test_a_cgroup_v1_limit_counts(machine):
    root, write = machine
    write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/slurm/job_7\n")
    write("sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", 3 * GIB)
    write("sys/fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", GIB)
    assert available(root) == 2 * GIB


def test_a_container_sees_its_own_limit_at_the_mount(machine):
    root, write = machine
    write("proc/self/cgroup", "0::/../../outside\n")
    write("sys/fs/cgroup/memory.max", 2 * GIB)
    write("sys/fs/cgroup/memory.current", GIB)
    assert available(root) == GIB


def test_what_the_slurm_job_asked_for_counts(machine):
    assert available(machine[0], SLURM_MEM_PER_NODE="2048") == 2 * GIB
    assert available(machine[0], SLURM_MEM_PER_CPU="512", SLURM_CPUS_ON_NODE="6") == 3 * GIB
    assert available(machine[0], SLURM_MEM_PER_NODE="0") == 8 * GIB


def test_what_a_slurm_job_has_used_is_gone(machine):
    root, write = machine
    write("proc/self/status", "VmHWM: 9 kB\nVmRSS: 524288 kB\n")
    assert available(root, SLURM_MEM_PER_NODE="2048") == 1.5 * GIB


def test_files_that_were_read_are_no_loss(machine):
    root, write = machine
    write("proc/self/cgroup", "0::/job\n")
    write("sys/fs/cgroup/job/memory.max", 6 * GIB)
    write("sys/fs/cgroup/job/memory.current", 5 * GIB)
    write("sys/fs/cgroup/job/memory.stat", f"anon 7\nactive_file {2 * GIB}\ninactive_file {GIB}\nfile_mapped {GIB}\n")
    assert available(root) == 3 * GIB
    write("proc/self/cgroup", "4:memory:/job\n")
    write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", 3 * GIB)
    write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", 3 * GIB)
    write("sys/fs/cgroup/memory/job/memory.stat", f"active_file 9\ntotal_active_file {GIB}\ntotal_inactive_file 5\n")
    assert available(root) == GIB + 5
    write("sys/fs/cgroup/memory/job/memory.stat", "total_active_file 3\ntotal_mapped_file 9\n")
    assert available(root) == 0


def test_memory_is_its_own_where_a_limit_is_below_what_the_machine_has(machine):
    root, _ = machine
    assert own_bytes(root, {}) is None
    assert own_bytes(root, {"SLURM_MEM_PER_NODE": "9000"}) is None
    assert own_bytes(root, {"SLURM_MEM_PER_NODE": "2048"}) == 2 * GIB
    assert own_bytes(root, {"SLURM_MEM_PER_NODE": "2048", "SLURMINFER_LOCAL": "1"}) is None


def test_kills_are_those_of_its_own_cgroup_or_of_the_next_one_above_that_counts(machine):
    root, write = machine
    assert oom_kills(root) == 0, "it does not say"
    write("proc/self/cgroup", "0::/job/step/task\n")
    write("sys/fs/cgroup/job/memory.events", "low 0\noom 9\noom_kill 9\n")
    write("sys/fs/cgroup/job/step/memory.events", "low 0\nhigh 1\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(root) == 2
    write("proc/self/cgroup", "4:memory:/job\n0::/\n")
    write("sys/fs/cgroup/memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills(root) == 3
