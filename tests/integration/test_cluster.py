"""The whole path on a real Slurm, as an ordinary user."""

import json
import shutil
import subprocess
import threading

import pytest

from benchmarks.fleet.model import write_model

from ..support.waiting import eventually
from .conftest import HOUSE
from .deployments import answered

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(400)]


@pytest.fixture
def squeue(sandbox, ordinary_user):
    def ask() -> list[str]:
        done = sandbox.run_as(ordinary_user, ["squeue", "--me", "--noheader", "--format=%j %T"])
        return sorted(done.stdout.splitlines())

    return ask


def test_an_endpoint_on_slurm_survives_a_lost_worker(cluster_user, sandbox, ordinary_user, squeue, shared):
    user = cluster_user
    user.ok("serve", HOUSE / "examples/cpu.toml", "--wait")
    assert squeue() == ["cpu-cpu-0 RUNNING", "cpu-cpu-1 RUNNING", "cpu-router RUNNING"]
    eventually(lambda: {worker["state"] for worker in user.status("cpu")["workers"]} == {"ready"})

    parts = user.client("cpu").chat.completions.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        stream=True,
        temperature=0,
        max_tokens=8,
    )
    assert "Paris" in "".join(part.choices[0].delta.content or "" for part in parts)

    # 100 prompts, and one of the two workers is cancelled in the middle of them.
    victim = user.status("cpu")["workers"][0]
    results: list[subprocess.CompletedProcess[str]] = []
    words = ("batch", HOUSE / "examples/data/prompts-100.jsonl", shared / "out.jsonl", "--run", "cpu")
    work = threading.Thread(target=lambda: results.append(user.slurminfer(*words, "--max-tokens", "8", timeout_s=300)))
    work.start()
    eventually(lambda: answered(shared / "out.jsonl") >= 5)
    subprocess.run(["scancel", victim["job"]], env=sandbox.env(), check=True)
    work.join()
    assert results[0].returncode == 0, results[0].stderr
    wanted = [json.loads(line)["id"] for line in (HOUSE / "examples/data/prompts-100.jsonl").read_text().splitlines()]
    ids = [json.loads(line)["id"] for line in (shared / "out.jsonl").read_text().splitlines()]
    assert len(wanted) == 100
    assert sorted(ids) == sorted(wanted)

    def states() -> dict[str, str]:
        return {worker["id"]: worker["state"] for worker in user.status("cpu")["workers"]}

    eventually(lambda: states() == {"cpu-1": "ready", "cpu-2": "ready"}, "another worker has taken its place")
    view = user.status("cpu")
    assert view["state"] == "ready"
    assert [one["id"] for one in view["pools"][0]["ended"]] == ["cpu-0"]
    user.ok("stop", "cpu")
    assert squeue() == []
    assert user.status("cpu")["state"] == "stopped"


def test_sbatch_of_the_batch_example_completes_on_its_own(cluster_user, sandbox, ordinary_user, shared):
    lines = (HOUSE / "examples/data/gsm8k-40.jsonl").read_text().splitlines()[:10]
    (shared / "in.jsonl").write_text("\n".join(lines) + "\n")
    script = shutil.copy(HOUSE / "examples/batch.sbatch", shared)
    env = {
        "SLURMINFER_HOME": str(cluster_user.home),
        "INPUT": str(shared / "in.jsonl"),
        "OUTPUT": str(shared / "out.jsonl"),
        "SLURMINFER": str(HOUSE / ".venv/bin/slurminfer"),
        "MAX_TOKENS": "16",
    }
    log = shared / "job.log"
    submitted = sandbox.run_as(ordinary_user, ["sbatch", "--parsable", f"--output={log}", script], env)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    ask = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "State"]
    eventually(
        lambda: sandbox.run_as(ordinary_user, ask).stdout.strip() not in ("", "PENDING", "RUNNING"), timeout_s=180
    )
    assert sandbox.run_as(ordinary_user, ask).stdout.strip() == "COMPLETED", log.read_text()
    ids = [json.loads(line)["id"] for line in (shared / "out.jsonl").read_text().splitlines()]
    assert sorted(ids) == sorted(json.loads(line)["id"] for line in lines)


def test_a_partition_that_does_not_exist_is_refused_and_leaves_nothing(cluster_user, squeue, shared):
    spec = shared / "spec.toml"
    spec.write_text((HOUSE / "examples/cpu.toml").read_text().replace('partition = "cpu"', 'partition = "nowhere"'))
    done = cluster_user.slurminfer("serve", spec)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "low" in done.stderr  # one of those that there are
    assert squeue() == []
    assert cluster_user.ok("status").count("stopped") == 1


def test_dry_run_prints_what_would_be_submitted(cluster_user, squeue):
    said = cluster_user.ok("serve", HOUSE / "examples/gpu-multinode.toml", "--dry-run")
    assert "#SBATCH --nodes=2" in said
    assert "--kill-on-bad-exit" in said
    assert squeue() == []


def test_the_walltime_signal_drains_a_worker_and_sends_it_back_to_the_queue(
    cluster_user, sandbox, ordinary_user, shared
):
    write_model(shared / "model", layers=1)
    sandbox.give(ordinary_user, shared / "model")
    spec = shared / "spec.toml"
    spec.write_text(
        (HOUSE / "examples/cpu.toml")
        .read_text()
        .replace('path = "demo"', f'path = "{shared}/model"')
        .replace("workers = 2", "workers = 1\ndrain_seconds = 20")
        .replace('time = "01:00:00"', 'time = "00:10:00"')
    )
    cluster_user.ok("serve", spec, "--wait")
    job = cluster_user.status("cpu")["workers"][0]["job"]
    subprocess.run(["scancel", "--signal=USR2", job], env=sandbox.env(), check=True)
    record = cluster_user.home / "runs/cpu/workers/cpu-0.json"
    eventually(lambda: json.loads(record.read_text())["epoch"] == 1, timeout_s=120)
    eventually(lambda: cluster_user.status("cpu")["workers"][0]["state"] == "ready")
    assert cluster_user.status("cpu")["workers"][0]["job"] == job
