"""Limits of partitions and QOS as Slurm 22.05 prints them."""

import pytest

from slurminfer.slurm.limits import Partition, longest_allowed_s, named, parse_partitions, qos_limits, qos_names

PARTITIONS = """\
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A \
DefaultTime=00:05:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=1-00:00:00 \
MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-4] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO \
OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=256 TotalNodes=4 SelectTypeParameters=NONE \
JobDefaults=(null) DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=256,mem=2000000M,node=4,billing=256
PartitionName=low AllowGroups=ALL DenyAccounts=guests AllowQos=normal,scavenge AllocNodes=ALL Default=NO QoS=scavenge \
DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=8 Hidden=NO MaxNodes=2 MaxTime=UNLIMITED MinNodes=0 \
LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=n[1-4] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO \
OverSubscribe=NO OverTimeLimit=NONE PreemptMode=REQUEUE State=DRAIN TotalCPUs=256 TotalNodes=4 \
SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=100 MaxMemPerNode=UNLIMITED
"""


def test_partitions():
    found = parse_partitions(PARTITIONS)
    assert found["cpu"] == Partition(name="cpu", is_default=True, nodes="n[1-4]", max_time_s=86_400, default_time_s=300)
    low = found["low"]
    assert (low.takes_jobs, low.max_time_s, low.default_time_s, low.max_nodes) == (False, None, None, 2)
    assert (low.preempt_mode, low.grace_s) == ("REQUEUE", 8)
    assert (found["cpu"].qos, low.qos) == ("", "scavenge")
    assert low.node_names == ("n1", "n2", "n3", "n4")


def test_names_of_qos(commands):
    commands("sacctmgr", "printf 'scavenge\\nnormal\\n'")
    assert qos_names() == ["normal", "scavenge"]


def test_a_cluster_without_accounting_has_no_qos(commands):
    commands("sacctmgr", "echo 'You are not running a supported accounting_storage plugin' >&2; exit 1")
    assert qos_names() == []


@pytest.mark.parametrize(
    ("enforced", "expected"),
    [
        ("associations,limits,qos", {"long": 7 * 86_400, "short": 1800}),
        ("safe", {"long": 7 * 86_400, "short": 1800}),
        ("associations,qos", {}),  # nobody enforces them
        ("none", {}),
    ],
)
def test_limits_of_qos(commands, enforced, expected):
    commands("scontrol", f"echo 'AccountingStorageEnforce = {enforced}'")
    commands("sacctmgr", "printf 'normal|\nlong|7-00:00:00\nshort|00:30:00\n'")
    assert qos_limits() == expected


@pytest.mark.parametrize(
    ("names", "qos", "expected"),
    [
        (None, "", 86_400),
        ("cpu", "short", 1800),
        ("cpu", "long", 86_400),
        ("low", "", 3600),  # by its own QOS
        ("low", "short", 1800),
        ("cpu,low", "", 86_400),  # the job may start in either
        ("nope", "", None),
    ],
)
def test_the_longest_limit_that_is_allowed(names, qos, expected):
    found = parse_partitions(PARTITIONS)
    limits = {"scavenge": 3600, "short": 1800, "long": 7 * 86_400}
    assert longest_allowed_s(named(found, names), limits, qos) == expected


def test_where_nothing_bounds_a_job_there_is_no_longest_limit():
    found = parse_partitions(PARTITIONS)
    assert longest_allowed_s(named(found, "cpu,low"), {}) is None
