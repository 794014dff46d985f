"""What is said of kills by the kernel, by files below a root."""

import pytest

from slurminfer.nodes.agent.out_of_memory import MemoryWatch

LIMITS = [("max", "the machine has 8.00 GiB"), (3 << 29, "the limit of its cgroup is 1.50 GiB")]


@pytest.mark.parametrize(("limit", "had"), LIMITS)
def test_kills_since_the_start_count(tmp_path, limit, had):
    job = tmp_path / "sys/fs/cgroup/job"
    job.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {8 << 20} kB\n")
    (job / "memory.max").write_text(str(limit))
    (job / "memory.events").write_text("oom 1\noom_kill 1\n")
    watch = MemoryWatch(tmp_path)
    assert watch.told() == "", "that was before"
    (job / "memory.events").write_text("oom 2\noom_kill 2\n")
    assert watch.told() == f"out of memory, {had}"
