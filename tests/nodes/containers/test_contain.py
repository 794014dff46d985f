"""The command lines of engines in containers, and what of the node is in there."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slurminfer.core.containers import Mount
from slurminfer.core.errors import EngineError
from slurminfer.core.spec.files import parse_spec
from slurminfer.core.spec.model import ModelSpec
from slurminfer.core.spec.pool import PoolSpec
from slurminfer.nodes.containers import apptainer, pyxis
from slurminfer.nodes.containers.contain import Command, contain, preview
from slurminfer.nodes.containers.mounts import mounts
from slurminfer.nodes.containers.variables import variables
from slurminfer.nodes.engines.launch import EngineLaunch
from slurminfer.nodes.engines.table import ADAPTERS
from slurminfer.nodes.staging.caches import NodeCaches

MOUNTS = [Mount("/home/u/.slurminfer", "/home/u/.slurminfer"), Mount("/m", "/m", read_only=True)]


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("SLURMINFER_HOME", "/home/u/.slurminfer")


def launch(model: str = "/models/llama", **pool) -> EngineLaunch:
    return EngineLaunch(
        model=ModelSpec(path=model), pool=PoolSpec(**{"container": "/images/vllm.sif", "engine": "vllm", **pool}),
        address="10.0.0.1", socket=Path("/tmp/p/engine.sock"), key="k-secret", private=Path("/tmp/p"), threads=8,
    )  # fmt: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A folder that is all of PATH, and a maker of programs in it that write down how they were called."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name: str) -> Path:
        log = tmp_path / f"{name}.log"
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >>{log}\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
        return log

    return make


def test_apptainer():
    assert apptainer.argv("apptainer", ["python3", "x"], launch(), MOUNTS) == [
        "apptainer", "exec", "--pid", "--cleanenv", "--no-eval", "--pwd", "/tmp/p",
        "--bind", "/home/u/.slurminfer:/home/u/.slurminfer", "--bind", "/m:/m:ro",
        "/images/vllm.sif", "python3", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(("is_amd", "option"), [(False, "--nv"), (True, "--rocm")])
def test_apptainer_gives_the_container_the_gpus_of_the_job(is_amd, option):
    argv = apptainer.argv("apptainer", ["x"], launch(gpus_per_node=2), MOUNTS, is_amd=is_amd)
    assert {"--nv", "--rocm"} & set(argv) == {option}


def test_pyxis():
    of_pool = launch(container="nvcr.io#nvidia/vllm:25.09", gpus_per_node=2, cpus_per_task=16)
    assert pyxis.argv(["python3", "x"], of_pool, MOUNTS, ["A", "B"], "n7") == [
        "srun", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=n7", "--cpus-per-task=16", "--cpu-bind=none",
        "--mem=0", "--mpi=none", "--gpus-per-node=2", "--export=A,B",
        "--container-image=nvcr.io#nvidia/vllm:25.09",
        "--container-mounts=/home/u/.slurminfer:/home/u/.slurminfer,/m:/m:ro",
        "--container-workdir=/tmp/p", "--container-env=A,B",
        "--container-mount-home", "--no-container-remap-root", "--no-container-entrypoint",
        "sh", "-c", 'echo "$SLURM_STEP_ID" >"$0"; exec "$@"', "/tmp/p/container.step", "python3", "x",
    ]  # fmt: skip


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_no_value_of_a_variable_stands_in_the_command_line(runtime, program):
    program("apptainer")
    of_pool = launch(container_runtime=runtime, env={"HF_TOKEN": "t-secret"}, gpus_per_node=1)
    adapter = ADAPTERS["vllm"]
    command = contain(Command(adapter.argv(of_pool), adapter.env(of_pool)), of_pool)
    assert not [word for word in command.argv if "secret" in word]
    prefix = "APPTAINERENV_" if runtime == "apptainer" else ""
    assert (command.env[f"{prefix}VLLM_API_KEY"], command.env[f"{prefix}HF_TOKEN"]) == ("k-secret", "t-secret")


def test_without_a_container_a_command_stays_as_it_is():
    command = Command(["x"], {})
    assert contain(command, launch(container=None)) is command


def test_the_walltime_s_signal_is_kept_from_the_engine(program):
    program("apptainer")
    argv = list(contain(Command(["python3"], {}), launch()).argv)
    at = argv.index("/images/vllm.sif")
    assert argv[at + 1 :] == ["sh", "-c", 'trap "" USR2; exec "$@"', "engine", "python3"]


def test_singularity_is_taken_where_there_is_no_apptainer(program):
    program("singularity")
    command = contain(Command(["x"], {"KEY": "k"}), launch())
    assert Path(command.argv[0]).name == "singularity"
    assert command.env["SINGULARITYENV_KEY"] == "k"


def test_a_node_without_apptainer_says_what_to_do(program):
    with pytest.raises(EngineError, match=r"neither apptainer nor singularity is on PATH; .*module load apptainer"):
        contain(Command(["x"], {}), launch())


def test_the_step_of_pyxis_is_killed_once_after_its_srun(program, tmp_path, monkeypatch):
    log = program("scancel")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    pyxis.end_step(tmp_path)  # it has never begun
    (tmp_path / "container.step").write_text("3\n", encoding="utf-8")
    pyxis.end_step(tmp_path)
    pyxis.end_step(tmp_path)
    assert log.read_text(encoding="utf-8") == "--signal=KILL 77.3\n"


def test_the_image_s_python_starts_its_engine_and_ours_the_native_one():
    assert launch().python == "python3"
    assert launch(python="/opt/venv/bin/python").python == "/opt/venv/bin/python"
    assert launch(engine="native").python == sys.executable


def test_what_is_always_mounted(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/scratch/u")
    found = {str(mount) for mount in mounts(launch())}
    assert {
        "/home/u/.slurminfer:/home/u/.slurminfer", "/scratch/u:/scratch/u", "/tmp/p:/tmp/p",
        "/models/llama:/models/llama:ro",
    } <= found  # fmt: skip


def test_caches_on_the_nodes_disk_are_mounted_writable():
    moved = replace(
        launch(), caches=NodeCaches(Path("/local/u/caches"), {"TRITON_CACHE_DIR": "/local/u/caches/triton"})
    )
    assert "/local/u/caches:/local/u/caches" in {str(mount) for mount in mounts(moved)}


def test_the_native_engine_s_environment_is_mounted_only_for_it():
    own = {mount.source for mount in mounts(launch(engine="native"))}
    others = {mount.source for mount in mounts(launch())}
    needed = Path(sys.prefix)
    assert any(needed.is_relative_to(folder) for folder in own)
    assert not any(needed.is_relative_to(folder) for folder in others)


def test_models_made_of_links_are_mounted_with_what_they_lead_to(tmp_path):
    blobs, model = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    model.mkdir()
    (blobs / "1").touch()
    (model / "model.safetensors").symlink_to("../blobs/1")
    assert {str(blobs), str(model)} <= {mount.source for mount in mounts(launch(str(model)))}


def test_outer_folders_are_mounted_before_inner_ones(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/home")
    given = ("/x:/home/u", "/models/llama:/home/u/data/model:ro")
    targets = [mount.target for mount in mounts(launch(container_mounts=given))]
    assert targets.index("/home") < targets.index("/home/u") < targets.index("/home/u/.slurminfer")
    assert targets.index("/home/u") < targets.index("/home/u/data/model")


def test_what_an_outer_mount_shows_is_not_mounted_again(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert "/tmp/p" not in {mount.target for mount in mounts(launch())}
    assert "/tmp/p" in {mount.target for mount in mounts(launch(container_mounts=("/fast:/tmp",)))}


def test_the_user_s_mount_wins():
    found = {mount.target: mount for mount in mounts(launch(container_mounts=("/fast:/models/llama",)))}
    assert found["/models/llama"] == Mount("/fast", "/models/llama")


def test_a_path_that_no_mount_can_name_is_said():
    with pytest.raises(EngineError, match="'/models/a:b' cannot be in a container"):
        mounts(launch("/models/a:b"))


def test_variables_of_the_node_s_own_programs_stay_outside():
    environ = {"PATH": "/node/bin", "LD_LIBRARY_PATH": "/node/lib", "NCCL_DEBUG": "INFO", "CUDA_VISIBLE_DEVICES": "3"}
    found = variables({"KEY": "engine"}, {"KEY": "pool", "MINE": "1", "HOME": "/x"}, environ)
    assert found == {
        "PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "NCCL_DEBUG": "INFO", "CUDA_VISIBLE_DEVICES": "3",
        "MINE": "1", "KEY": "engine",
    }  # fmt: skip


@pytest.mark.parametrize(("runtime", "first"), [("apptainer", "apptainer exec --pid"), ("pyxis", "srun --overlap")])
def test_a_preview_needs_neither_the_node_nor_the_model(runtime, first):
    image = {"apptainer": "/a.sif", "pyxis": "a/b:1"}[runtime]
    pool = f'[[pool]]\nengine = "sglang"\ncontainer = "{image}"\ncontainer_runtime = "{runtime}"\n'
    spec = parse_spec(f'name = "x"\n[model]\npath = "org/name"\n{pool}')
    comment, command = preview(spec, spec.pool[0]).splitlines()
    assert comment.startswith("#")
    assert command.startswith(f"#   {first} ")
    assert command.endswith(" python3 ENGINE")
    assert "/MODEL:/MODEL:ro" in command
