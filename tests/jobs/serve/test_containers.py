"""Which runtime a pool's container gets, and what is refused before anything is submitted."""

from pathlib import Path

import msgspec
import pytest

from slurminfer.core.errors import SpecError
from slurminfer.core.spec.deployment import DeploymentSpec
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.launch.local import LocalLauncher
from slurminfer.jobs.serve.containers import require_launcher, with_runtimes
from slurminfer.jobs.serve.requests import dry_run

from ...support.sites import cluster, machine, partition, report, site

ELSEWHERE = Path("/opt/python")


def spec_of(image: object, keys: str = 'engine = "vllm"') -> DeploymentSpec:
    return parse_spec(
        f'name = "x"\n[model]\npath = "/m"\n[router]\nport = 0\n[[pool]]\ncontainer = "{image}"\n{keys}\n'
    )


def runtime_of(image: object, profile=None, keys: str = 'engine = "vllm"') -> str | None:
    return with_runtimes(spec_of(image, keys), lambda: profile, ELSEWHERE).pool[0].container_runtime


def site_with(pyxis: bool, containers: dict[str, str], name: str = "gpu"):
    software = report().machine.software
    seen = report(software=msgspec.structs.replace(software, containers=containers))
    return site(partition(name, reports=(seen,)), cluster=cluster(has_pyxis=pyxis), here=machine())


def test_the_image_s_form_decides(tmp_path):
    (tmp_path / "a.sif").touch()
    (tmp_path / "a.sqsh").touch()
    both = site_with(True, {"apptainer": "1.4"})
    assert runtime_of(tmp_path / "a.sif", site_with(True, {})) == "apptainer"
    assert runtime_of(tmp_path / "a.sqsh", both) == "pyxis"
    assert runtime_of("org/image:1", both) == "pyxis"


@pytest.mark.parametrize(
    ("profile", "runtime"),
    [
        (None, "apptainer"),
        (site_with(True, {}), "pyxis"),
        (site_with(True, {"apptainer": "1.4"}), "apptainer"),
        (site_with(True, {"singularity": "4.1"}), "apptainer"),
        (site_with(True, {"enroot": "3.4"}), "pyxis"),
        (site_with(False, {}), "apptainer"),
    ],
)
def test_what_the_doctor_has_seen_decides_where_the_form_does_not(profile, runtime):
    assert runtime_of("docker://org/image:1", profile) == runtime


def test_only_the_pool_s_partition_counts():
    profile = site_with(True, {"apptainer": "1.4"}, "cpu")
    assert runtime_of("docker://a/b", profile, 'engine = "vllm"\npartition = "gpu"') == "pyxis"
    assert runtime_of("docker://a/b", profile, 'engine = "vllm"\npartition = "cpu"') == "apptainer"


def test_what_the_spec_says_stays():
    profile = site_with(True, {})
    assert runtime_of("docker://a/b", profile, 'engine = "vllm"\ncontainer_runtime = "apptainer"') == "apptainer"


def test_a_pool_without_a_container_stays_as_it_is():
    spec = parse_spec('name = "x"\n[model]\npath = "m"\n[[pool]]\n')
    assert with_runtimes(spec) == spec


def test_an_image_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"pool\[0\]\.container = '.*/none.sif': there is no such file"):
        runtime_of(tmp_path / "none.sif")


def test_our_own_python_cannot_be_mounted_over_that_of_the_image(tmp_path):
    spec = spec_of(tmp_path, "")
    with pytest.raises(SpecError, match=r"pool\[0\]\.python: missing; .* in /usr, .* name a Python of the image"):
        with_runtimes(spec, prefix=Path("/usr"))
    with_runtimes(spec, prefix=ELSEWHERE)
    with_runtimes(spec_of(tmp_path, 'python = "python3"'), prefix=Path("/usr"))


def test_pyxis_needs_slurm():
    spec = with_runtimes(spec_of("a/b:1"))
    require_launcher(spec, "slurm")
    with pytest.raises(SpecError, match=r"pool\[0\]\.container_runtime = 'pyxis': .*needs Slurm jobs"):
        require_launcher(spec, "local")


def test_a_dry_run_shows_the_container_of_each_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path))
    router, worker = dry_run(with_runtimes(spec_of(tmp_path)), LocalLauncher())
    assert "apptainer" not in router
    assert "apptainer exec --pid --cleanenv --no-eval --pwd /tmp/slurminfer-XXXXXXXX --bind" in worker
    assert f" {tmp_path} sh -c " in worker
