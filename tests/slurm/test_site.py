"""Settings of a cluster and its nodes, as Slurm 22.05 prints them."""

from slurminfer.core.site.doctor import GpuKind
from slurminfer.slurm.site import parse_config, parse_nodes

CONFIG = """\
Configuration data as of 2026-11-29T21:59:02
AccountingStorageEnforce = associations,limits
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = sandbox
DefMemPerCPU            = 100
KillWait                = 5 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 300 sec
SelectTypeParameters    = CR_CPU_MEMORY
SlurmctldParameters     = preempt_send_user_signal
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at head is UP
"""
NODES = """\
cpu|64|500000|gpu:h100:8(S:0-1)|h100,ib
gpu|64|500000|gpu:h100:8(S:0-1)|h100,ib
cpu|128+|250000|gpu:a100:4,tmpdisk:100|a100
cpu|64|500000|(null)|(null)
plain|16|8000|gpu:2|(null)
"""


def test_settings():
    found = parse_config(CONFIG, ("normal",), False)
    assert (found.name, found.slurm_version, found.qos, found.has_pyxis) == ("sandbox", "22.05.8", ("normal",), False)
    assert (found.min_job_age_s, found.kill_wait_s, found.max_array, found.max_jobs) == (300, 5, 1001, 10_000)
    assert found.has_accounting and found.enforces_accounts and found.preempt_signal and found.selects_memory
    assert (found.memory_per_cpu_mb, found.memory_per_node_mb) == (100, None)


def test_a_cluster_with_none_of_it():
    found = parse_config("AccountingStorageType   = accounting_storage/none\nDefMemPerNode = UNLIMITED\n", (), True)
    assert not (found.has_accounting or found.enforces_accounts or found.preempt_signal or found.selects_memory)
    assert (found.memory_per_cpu_mb, found.memory_per_node_mb, found.has_pyxis) == (None, None, True)


def test_nodes_of_a_partition():
    found = parse_nodes(NODES)
    assert (found["cpu"].nodes, found["cpu"].cpus, found["cpu"].memory) == (3, 64, 250_000 << 20)
    assert found["cpu"].gpus == (GpuKind(type="a100", per_node=4, nodes=1), GpuKind(type="h100", per_node=8, nodes=1))
    assert found["cpu"].features == ("a100", "h100", "ib")
    assert found["plain"].gpus == (GpuKind(type="", per_node=2, nodes=1),)
    assert found["plain"].features == ()
