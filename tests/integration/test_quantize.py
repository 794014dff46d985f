"""Quantization as a job on a real Slurm, as an ordinary user: shared by nodes, interrupted, always the same bytes."""

import hashlib
import json
import shutil
import subprocess
import threading

import pytest

from ..quant.awq.conftest import make_model
from ..support.demo_layers import write_first_layers
from ..support.waiting import eventually
from .conftest import HOUSE

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(600)]
TEXT = HOUSE / "examples/data/prompts-100.jsonl"
OPTIONS = ("--calibration", TEXT, "--samples", "4", "--sample-length", "64")
LAYERS = 8


@pytest.fixture
def model(shared, demo_model):
    """The first layers of the demo model: enough of them to be interrupted twice."""
    directory = shared / "SmolLM2-135M-cut"
    write_first_layers(demo_model, directory, LAYERS)
    return directory


@pytest.fixture
def expected(user, tmp_path, model):
    """Of what one process makes of the model without Slurm."""
    user.ok("quantize", model, tmp_path / "alone", *OPTIONS, "--threads", "1", timeout_s=400)
    return digest(tmp_path / "alone")


@pytest.fixture
def out(shared):
    return shared / "out"


def digest(directory):
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


def finished(out):
    layers = out.with_name(f".{out.name}.quantizing") / "layers"
    return len(list(layers.glob("[0-9]*"))) if layers.exists() else 0


def start(cluster_user, model, out):
    """The command in a thread: what it came to, when it has come to something."""
    results = []
    spec = HOUSE / "examples/quantize.toml"
    thread = threading.Thread(
        target=lambda: results.append(
            cluster_user.slurminfer("quantize", model, out, "--spec", spec, *OPTIONS, timeout_s=500)
        )
    )
    thread.start()
    return thread, results


def test_two_nodes_and_all_that_can_happen_to_them(cluster_user, sandbox, ordinary_user, out, expected, model):
    def jobs():
        done = sandbox.run_as(ordinary_user, ["squeue", "--me", "--noheader", "--format=%i %T %N"])
        return [line.split() for line in done.stdout.splitlines()]

    # A job that is killed says so, and what it had finished is kept.
    thread, results = start(cluster_user, model, out)
    eventually(lambda: finished(out) >= 2, timeout_s=200)
    ((job, *_),) = jobs()
    subprocess.run(["scancel", job], env=sandbox.env(), check=True)
    thread.join()
    assert results[0].returncode == 1
    assert f"job {job} ended as CANCELLED" in results[0].stderr and "logs in" in results[0].stderr
    assert not out.exists()
    kept = finished(out)
    assert kept >= 2

    # The same command goes on. A node that dies puts the job back into the queue, and its layers stay done as well.
    thread, results = start(cluster_user, model, out)
    eventually(lambda: finished(out) > kept, timeout_s=200)
    ((job, _, nodes),) = jobs()
    victim = nodes.replace("[", "").replace("]", "").replace(",", "-").split("-")[0]
    sandbox.node_off(victim)
    try:
        subprocess.run(["scontrol", "update", f"nodename={victim}", "state=down", "reason=test"], env=sandbox.env())
        thread.join()
    finally:
        sandbox.node_up(victim)
    assert results[0].returncode == 0, results[0].stderr
    assert digest(out) == expected
    assert "135" in (out / "quantization.json").read_text()
    assert not out.with_name(".out.quantizing").exists()
    eventually(lambda: jobs() == [])


def test_sbatch_of_the_example_quantizes_and_evaluates(sandbox, ordinary_user, shared, out, lend_library):
    lend_library(shared / "home")
    sandbox.give(ordinary_user, shared / "home")
    make_model(shared / "model")  # a small one: evaluation loads it ten times
    for path in (shared / "model").iterdir():
        path.chmod(0o644)  # others may read it: it is root's
    text = shared / "text.txt"
    text.write_text(" ".join(str(7 * i * i % 300) for i in range(1000)))
    script = shutil.copy(HOUSE / "examples/quantize.sbatch", shared)
    env = {
        "SLURMINFER_HOME": str(shared / "home"),
        "MODEL": str(shared / "model"),
        "OUT": str(out),
        "SLURMINFER": str(HOUSE / ".venv/bin/slurminfer"),
        "OPTIONS": f"--calibration {text} --samples 8 --sample-length 32",
        "EVALUATE": f"--text {text} --windows 2",
    }
    log = shared / "job.log"
    submitted = sandbox.run_as(ordinary_user, ["sbatch", "--parsable", f"--output={log}", script], env)
    assert submitted.returncode == 0, submitted.stderr
    ask = ["sacct", "-X", "-n", "-P", "-j", submitted.stdout.strip(), "-o", "State"]
    eventually(
        lambda: sandbox.run_as(ordinary_user, ask).stdout.strip() not in ("", "PENDING", "RUNNING"), timeout_s=500
    )
    assert sandbox.run_as(ordinary_user, ask).stdout.strip() == "COMPLETED", log.read_text()
    assert json.loads((out / "evaluation.json").read_text())
    assert (out / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert "quantize 4/4" in log.read_text()


def test_dry_run_prints_the_job(cluster_user, out):
    said = cluster_user.ok("quantize", "demo", out, "--spec", HOUSE / "examples/quantize.toml", "--dry-run")
    assert "#SBATCH --nodes=2" in said and "#SBATCH --requeue" in said and "--kill-on-bad-exit=1" in said


def test_a_wrong_spec_names_the_key(cluster_user, out, shared):
    (shared / "job.toml").write_text("node = 2\n")
    done = cluster_user.slurminfer("quantize", "demo", out, "--spec", shared / "job.toml")
    assert done.returncode == 1
    assert "node = 2: unknown key; valid keys: partition, account" in done.stderr
