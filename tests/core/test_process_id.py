"""Names of processes that outlive a step of the clock."""

import os
import subprocess

import pytest

from slurminfer.core.processes import process_id


def test_a_process_is_known_by_ticks_since_boot_and_boot():
    name = process_id.process_id(os.getpid())
    assert process_id.is_running(name)
    assert process_id.pid_of(name) == os.getpid()
    ticks = int(name.partition("@")[2].partition("-")[0])
    assert not process_id.is_running(f"{os.getpid()}@{ticks + 1}-{process_id.boot()}"), "another process of this pid"
    assert not process_id.is_running(f"{os.getpid()}@{ticks}-{'f' * 8}"), "before the machine was restarted"


def test_no_clock_has_a_part_in_it(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr(process_id, "_boot_time_s", lambda: 12.0)  # what the kernel calculates anew from the clock
    assert process_id.is_running(process_id.process_id(os.getpid()))


def test_a_process_that_waits_to_be_reaped_has_ended():
    child = subprocess.Popen(["sleep", "60"])
    name = process_id.process_id(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_id.is_running(name)
    child.wait()
    assert not process_id.is_running(name)


def test_names_of_an_earlier_version_are_understood():
    ticks = int(process_id.process_id(os.getpid()).partition("@")[2].partition("-")[0])
    started = process_id._boot_time_s() + ticks / os.sysconf("SC_CLK_TCK")
    assert process_id.is_running(f"{os.getpid()}@{started:.2f}")
    assert not process_id.is_running(f"{os.getpid()}@{started - 10:.2f}")


@pytest.mark.parametrize("name", ["", "7", "x@1-00000000", "7@soon", "-1@1.0", "7@1-", "99999999999@1-00000000"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="expected PID@TICKS-BOOT"):
        process_id.is_running(name)
