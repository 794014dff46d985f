"""What the doctor says of a site, in words."""

import msgspec
import pytest

from slurminfer.core.site.doctor import GpuKind
from slurminfer.core.site.machine import Gpus, Memory, Processor, Software
from slurminfer.jobs.doctor.findings import findings
from slurminfer.jobs.doctor.routes import open_interfaces

from ...support import sites
from ...support.sites import GIB


def said(*partitions, **fields):
    """What is said, with its places and its advice in one text each."""
    return [f"{'+'.join(one.where)}: {one.what}. {one.advice}" for one in findings(sites.site(*partitions, **fields))]


def test_where_all_is_well_nothing_is_said():
    assert said(sites.partition()) == []


def test_what_holds_of_several_partitions_is_said_once():
    memory = Memory(of_machine=GIB, cgroup_limit=None, slurm_limit=200 << 20)
    report = sites.report(memory=memory)
    (found,) = said(sites.partition("a", reports=(report,)), sites.partition("b", reports=(report, report)))
    assert found == 'a+b: a job that asks for no memory gets 200 MiB. set mem in the pool, such as mem = "32G"'


def test_a_partition_that_wants_to_know_the_memory():
    (found,) = said(sites.partition(asked_memory="1G", reports=(sites.report(memory=Memory(of_machine=GIB)),)))
    assert "refuses jobs that do not say how much memory" in found


def test_a_partition_that_was_not_seen_says_why():
    (found,) = said(sites.partition("a", outcome="waited", reason="its state is DOWN", reports=(), seen_at=None))
    assert found.startswith("a: nothing is known of its nodes: its state is DOWN")
    (found,) = said(sites.partition("a", outcome="waited", reason="busy"))
    assert "of an earlier job: busy" in found


def processor(cpus: int) -> Processor:
    return Processor(name="EPYC", cpus_of_machine=64, cpus=tuple(range(cpus)), cores=cpus, numa=())


def software(**fields: str | int | None) -> Software:
    return msgspec.structs.replace(sites.machine().software, **fields)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (sites.report(processor=processor(64)), "may run on all 64"),
        (sites.report(processor=processor(1)), "asked for 2 CPUs may run on 1 only"),
        (sites.report(gpus=Gpus(device_files=1)), "has no CUDA_VISIBLE_DEVICES"),
        (sites.report(gpus=Gpus(visible_devices="0", visible_by="number", device_files=8)), "with one GPU can open 8"),
        (sites.report(gpus=Gpus(visible_devices="0", visible_by="number")), "can open none of /dev/nvidia*"),
        (sites.report(may_submit=False, submit_answer="Access denied"), "be submitted from its nodes (Access denied)"),
        (sites.report(clock_offset_s=-7.5, clock_error_s=0.1), "the clock of n1 is -7.5 s off"),
        (sites.report(software=software(python="3.12.1")), "Python is 3.12.1"),
        (sites.report(software=software(glibc="glibc 2.28")), "glibc 2.28"),
        (sites.report(software=software(compiler=None)), "there is no g++"),
        (sites.report(folders=(sites.folder("temporary files", "/tmp", is_memory=True),)), "which is main memory"),
        (sites.report(folders=(sites.folder("temporary files", "/tmp", is_shared=True),)), "shared with other nodes"),
        (sites.report(folders=(sites.folder("temporary files", "/tmp", may_execute=False),)), "(noexec)"),
        (sites.report(folders=(sites.folder("temporary files", "/tmp", free=GIB),)), "with 1.0 GiB free"),
        (sites.report(folders=(sites.folder("TMPDIR, temporary files", "/l", is_writable=False),)), "nothing can"),
        (
            sites.report(folders=(sites.folder("HF_HOME", "/home/u/hf", quota=30 * GIB, quota_used=25 * GIB),)),
            "/home/u/hf (HF_HOME) has room for 5.0 GiB",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_on_a_node_is_said(report, words):
    (found,) = said(sites.partition(reports=(report,)))
    assert words in found


@pytest.mark.parametrize(
    ("domains", "sizes", "least"),
    [((32, 32), "2 NUMA domains (32 CPUs each)", 32), ((43, 43, 42), "3 NUMA domains (43, 43, 42 CPUs)", 42)],
)
def test_nodes_of_several_numa_domains_are_told_with_what_to_set(domains, sizes, least):
    several = msgspec.structs.replace(processor(2), numa_of_machine=domains)
    (found,) = said(sites.partition(reports=(sites.report(processor=several),)))
    assert sizes in found
    assert f'cpus_per_task = {least}; with whole nodes workers_per_job = "numa"' in found
    on_gpus = sites.partition(gpus=(GpuKind(type="", per_node=8, nodes=1),), reports=(sites.report(processor=several),))
    assert not any("NUMA" in line for line in said(on_gpus))


def test_one_numa_domain_is_nothing_to_know():
    one = msgspec.structs.replace(processor(2), numa_of_machine=(64,))
    assert said(sites.partition(reports=(sites.report(processor=one),))) == []


def test_infiniband_needs_locked_memory():
    link = msgspec.structs.replace(sites.network("n1"), infiniband=("mlx5_0: 200 Gb/sec",))
    (found,) = said(sites.partition(reports=(sites.report(network=link, software=software(locked_memory=64 << 10)),)))
    assert "InfiniBand needs locked memory" in found


def test_preemption_bounds_the_time_to_drain():
    (found,) = said(sites.partition(preempt_mode="REQUEUE", grace_s=30))
    assert found.endswith("set drain_seconds to at most 30 in its pools")


def test_gpus_of_several_types_need_a_constraint():
    kinds = (GpuKind(type="a100", per_node=8, nodes=1), GpuKind(type="h100", per_node=8, nodes=1))
    (found,) = said(sites.partition(gpus=kinds, features=("h100", "ib")))
    assert "(a100, h100)" in found and 'slurm = { constraint = "h100" }' in found


def test_gpus_that_were_not_asked_for_or_not_as_a_pool_asks():
    kinds = (GpuKind(type="", per_node=8, nodes=1),)
    (found,) = said(sites.partition(gpus=kinds, asked_gpus=0, gpu_option=""))
    assert "no GPU was looked at" in found
    (found,) = said(sites.partition(gpus=kinds, gpu_option="--gres=gpu:1"))
    assert "refuses --gpus-per-node" in found


def test_an_old_slurm_and_one_without_accounting():
    found = said(cluster=sites.cluster(slurm_version="19.05.3-2", has_accounting=False))
    assert "19.05.3-2 is older than 20.11" in found[0] and "forgotten after 300 s" in found[1]
    assert said(cluster=sites.cluster(slurm_version="20.11.0")) == []


def two_nodes(*routes):
    reports = (sites.report("n1", network=sites.network("n1", "10.0.0.1")),
               sites.report("n2", network=sites.network("n2", "10.0.0.2")))  # fmt: skip
    return sites.partition(reports=reports, routes=routes)


def test_nodes_that_do_not_reach_each_other():
    found = said(two_nodes(sites.route("n1", "n2", "10.0.0.2", False), sites.route("n2", "n1", "10.0.0.1", False)))
    assert len(found) == 1 and "do not reach each other's ports" in found[0]


def test_nodes_that_are_reached_at_another_address_than_is_told():
    found = said(
        two_nodes(
            sites.route("n1", "n2", "10.0.0.2", False),
            sites.route("n1", "n2", "fe80::2%ib0", interface="ib0"),
            sites.route("n1", "n2", "10.9.0.2", interface="ib0"),
        )
    )
    assert len(found) == 1 and "do not reach n2 at 10.0.0.2 (Connection refused)" in found[0]
    assert 'SLURMINFER_INTERFACE = "ib0"' in found[0]


def test_nodes_that_this_machine_does_not_reach():
    found = said(two_nodes(sites.route("login", "n1", "10.0.0.1", False), sites.route("n1", "n2", "10.0.0.2")))
    assert len(found) == 1 and "cannot be reached from this machine" in found[0]


def test_the_interfaces_by_which_nodes_are_reached():
    found = two_nodes(
        sites.route("login", "n1", "10.0.0.1"),
        sites.route("n1", "n2", "10.0.0.2"),
        sites.route("n1", "n2", "fe80::2%ib0", interface="ib0"),
        sites.route("n2", "n1", "10.0.0.1"),
    )
    assert open_interfaces(found) == {"eth0": ("10.0.0.2",), "ib0": ("fe80::2%ib0",)}
