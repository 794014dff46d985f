"""From which NUMA nodes this thread, and what it starts from now on, takes its memory.

The nodes are preferred, not bound (MPOL_PREFERRED, MPOL_PREFERRED_MANY, not MPOL_BIND): when they are full, the kernel
takes memory of other nodes, where with MPOL_BIND it would kill the process. Slower is better than gone, and how much a
domain can hold is known only once the model and its KV cache are there.

Child processes inherit the policy, over exec too. The system call is made directly: there is no Python library for it
that is kept, and libnuma is not on every node.
"""

import ctypes
import os
import platform

from .numa import own_memory

_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261}
_DEFAULT, _PREFERRED, _PREFERRED_MANY = 0, 1, 5  # linux/mempolicy.h; the last since Linux 5.15
_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)


def prefer_own_memory() -> str:
    """Prefer the memory beside this thread's CPUs, where they are of one NUMA domain and there is a choice.

    Returns:
        Why that was not possible; empty if it is done, or nothing is to be done.
    """
    nodes = own_memory()
    return "" if nodes is None else prefer_memory(nodes)


def prefer_memory(nodes: frozenset[int]) -> str:
    """Prefer the memory of these nodes; of none: each thread that of the node on which it runs.

    Returns:
        Why that was not possible; empty if it is done.
    """
    number = _SET_MEMPOLICY.get(platform.machine())
    if number is None:
        return f"memory is not kept to a NUMA domain: not known how on {platform.machine()}"
    words = max(nodes, default=0) // _BITS + 1
    mask = (ctypes.c_ulong * words)()
    for node in nodes:
        mask[node // _BITS] |= 1 << node % _BITS
    mode = _PREFERRED_MANY if len(nodes) > 1 else _PREFERRED if nodes else _DEFAULT
    call = ctypes.CDLL(None, use_errno=True).syscall
    # The kernel reads one bit less than it is told of.
    if call(number, mode, mask if nodes else None, ctypes.c_ulong(words * _BITS + 1 if nodes else 0)) == 0:
        return ""
    # EPERM: a container's seccomp filter; ENOSYS: a kernel without NUMA; EINVAL: one that does not know the mode.
    return f"memory is not kept to a NUMA domain: {os.strerror(ctypes.get_errno())}"
