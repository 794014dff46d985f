"""Preferring a node's memory, by the kernel's own word."""

import ctypes
import platform
import subprocess
import sys

import pytest

from slurminfer.core.machine.memory_policy import prefer_memory

_CHILD = """
import subprocess, sys
from slurminfer.core.machine.memory_policy import prefer_memory
said = prefer_memory(frozenset(map(int, sys.argv[1].split(",")))) if sys.argv[1] else prefer_memory(frozenset())
child = subprocess.run(["cat", "/proc/self/numa_maps"], capture_output=True, text=True).stdout
print(said or child)
"""


def seen(nodes: str) -> str:
    """What the kernel says of a program that a process has started which prefers these nodes; or why it cannot."""
    return subprocess.run([sys.executable, "-c", _CHILD, nodes], capture_output=True, text=True, check=True).stdout


@pytest.mark.process
def test_a_program_that_is_started_afterwards_prefers_the_node():
    said = seen("0")
    if "Operation not permitted" in said:
        pytest.skip("this container forbids set_mempolicy")
    assert " prefer:0 " in said or " prefer=relative:0 " in said
    assert " prefer" not in seen("")


@pytest.mark.process
def test_a_node_that_is_not_there_is_said_and_changes_nothing():
    said = seen("1000")
    assert said.startswith("memory is not kept to a NUMA domain: ")
    assert "prefer:" not in said


class Refusing:
    """A C library in a container whose seccomp filter forbids the call."""

    @staticmethod
    def syscall(*_arguments):
        ctypes.set_errno(1)
        return -1


def test_what_the_container_forbids_is_said(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_options: Refusing)
    assert prefer_memory(frozenset({0})) == "memory is not kept to a NUMA domain: Operation not permitted"


def test_an_unknown_processor_is_said(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert prefer_memory(frozenset({0})) == "memory is not kept to a NUMA domain: not known how on pdp11"
