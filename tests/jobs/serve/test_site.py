"""What a deployment makes of what the doctor has learned."""

from typing import Any

import pytest

from slurminfer.core.errors import RunDirectoryError
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.site.doctor import SiteProfile
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.serve.requests import worker_request
from slurminfer.jobs.serve.site import remarks, with_gpu_options

from ...support.sites import partition, report, route, site

REFUSED: dict[str, Any] = {"may_submit": False, "submit_answer": "Access/permission denied"}


def spec_of(pool: str = "", router: str = "") -> DeploymentSpec:
    return parse_spec(f'name = "x"\n[model]\npath = "/m"\n[[pool]]\nname = "p"\n{pool}\n[router]\n{router}\n')


def said(spec: DeploymentSpec, profile: SiteProfile | None) -> tuple[str, ...]:
    return remarks(spec, lambda: profile)


def gres(pool: str, profile: SiteProfile | None) -> object:
    return with_gpu_options(spec_of(f"gpus_per_node = 4\ntensor_parallel = 4\n{pool}"), lambda: profile).pool[0].slurm


def test_nodes_that_may_not_submit_are_said_where_the_router_runs():
    profile = site(partition("cpu", reports=(report(**REFUSED),)), partition("gpu"))
    (found,) = said(spec_of(router='partition = "cpu"'), profile)
    assert "the nodes of partition 'cpu' (Access/permission denied)" in found and "not replaced" in found
    assert said(spec_of('partition = "cpu"', 'partition = "gpu"'), profile) == ()


def test_a_partition_that_is_not_named_may_be_any():
    refusing = partition("cpu", reports=(report(**REFUSED),))
    assert said(spec_of(), site(refusing, partition("gpu"))) == ()
    (found,) = said(spec_of(), site(refusing))
    assert "the nodes of this cluster" in found


@pytest.mark.parametrize("may_submit", [True, None])
def test_what_one_node_may_or_nobody_knows_is_not_said(may_submit):
    reports = (report(**REFUSED), report("n2", may_submit=may_submit))
    assert said(spec_of(), site(partition(reports=reports))) == ()


def test_ports_that_this_machine_does_not_reach_matter_at_the_router():
    closed = partition("gpu", routes=(route("login", "n1", "10.0.0.1", is_open=False),))
    (found,) = said(spec_of(router='partition = "gpu"'), site(closed))
    assert found.startswith("router, in partition gpu: ports of its nodes cannot be reached from this machine")
    assert said(spec_of('partition = "gpu"', 'partition = "cpu"'), site(closed, partition("cpu"))) == ()


def test_nodes_that_do_not_reach_each_other_matter_at_the_pools():
    two = (report("n1"), report("n2"))
    apart = partition("gpu", reports=two, routes=(route("n1", "n2", "10.0.0.2", is_open=False),))
    (found,) = said(spec_of('partition = "gpu"', 'partition = "cpu"'), site(apart))
    assert found.startswith("pool 'p', in partition gpu: its nodes do not reach each other's ports")
    chosen = 'partition = "gpu"\nenv = { SLURMINFER_INTERFACE = "ib0" }'
    assert said(spec_of(chosen, 'partition = "cpu"'), site(apart)) == ()


def test_of_a_list_of_partitions_only_what_holds_in_all_is_said():
    closed = partition("gpu", routes=(route("login", "n1", "10.0.0.1", is_open=False),))
    open_ = partition("cpu", routes=(route("login", "n1", "10.0.0.1"),))
    assert said(spec_of(router='partition = "gpu,cpu"'), site(closed, open_)) == ()


def test_without_the_doctor_there_is_nothing_to_say():
    assert said(spec_of(), None) == ()
    assert said(spec_of(), site(cluster=None)) == ()

    def damaged() -> SiteProfile:
        raise RunDirectoryError("another version")

    assert remarks(spec_of(), damaged) == ()
    assert gres("", None) == {}


@pytest.mark.parametrize(
    ("option", "pool", "slurm"),
    [
        ("--gres=gpu:1", "", {"gres": "gpu:4"}),
        ("--gres=gpu:a100:1", "", {"gres": "gpu:a100:4"}),
        ("--gpus-per-node=1", "", {}),
        ("", "", {}),
        ("--gres=gpu:1", 'slurm = { gres = "tmp:9" }', {"gres": "gpu:4,tmp:9"}),
        ("--gres=gpu:1", 'slurm = { gres = "gpu:h100:4" }', {"gres": "gpu:h100:4"}),  # the user's own word
    ],
)
def test_gpus_are_asked_for_as_the_cluster_takes_it(option, pool, slurm):
    assert gres(pool, site(partition(gpu_option=option))) == slurm


def test_partitions_that_differ_leave_it_to_the_user():
    assert gres("", site(partition("a", gpu_option="--gres=gpu:1"), partition("b"))) == {}
    both = site(partition("a", gpu_option="--gres=gpu:1"), partition("b"))
    assert gres('partition = "a"', both) == {"gres": "gpu:4"}


def test_a_job_asks_for_its_gpus_in_one_way(tmp_path):
    """Slurm refuses a job whose --gres and --gpus-per-node differ."""
    keys = "gpus_per_node = 4\ntensor_parallel = 4\n"
    typed, plain = (spec_of(keys + more) for more in ('slurm = { gres = "gpu:a100:4" }', 'slurm = { gres = "tmp:9" }'))
    asked = [worker_request(spec, RunDirectory(tmp_path), "p-0", 0) for spec in (typed, plain)]
    assert [one.gpus_per_node for one in asked] == [0, 4]
