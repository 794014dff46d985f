"""The tunnel to a router that Slurm runs, through an sshd on the head node, as an ordinary user."""

import os
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from ..support.sshd import Sshd, require_sshd
from ..support.tunnel_program import SLURMINFER, Asking, Tunnel
from ..support.waiting import eventually

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.timeout(300)]

# The worker never starts: what is asked here, the router answers itself.
SPEC = """
name = "moving"
[model]
path = "demo"
[[pool]]
name = "w"
slurm = { hold = true }
[router]
port = 0
time = "00:10:00"
"""


@pytest.fixture
def sshd(sandbox, ordinary_user, cluster_user, shared) -> Iterator[Sshd]:
    require_sshd()
    env = {"SLURMINFER_HOME": str(cluster_user.home)}
    sshd = Sshd(shared / "sshd", ordinary_user, lambda argv: sandbox.argv_as(ordinary_user, argv, env))
    slurm_conf = sandbox.env()["SLURM_CONF"]
    sshd.serve(f"SetEnv SLURMINFER_HOME={cluster_user.home} SLURM_CONF={slurm_conf}")
    sandbox.give(ordinary_user, sshd.folder)
    sshd.start()
    yield sshd
    sshd.kill()


def test_the_tunnel_follows_a_requeued_router_to_another_node(sandbox, cluster_user, sshd, shared, tmp_path):
    spec = shared / "moving.toml"
    spec.write_text(SPEC, encoding="utf-8")
    cluster_user.ok("serve", spec)
    env = {**sshd.env(), "SLURMINFER_HOME": str(tmp_path / "laptop")}
    tunnel = Tunnel(["moving", "--to", "login", "--remote", " ".join(SLURMINFER)], env)
    try:
        first = ask(tunnel)
        view = cluster_user.status("moving")
        job = view["router_job"]
        asking = Asking(f"{tunnel.url.removesuffix('/v1')}/openapi.json")
        node = squeue(sandbox, job, "%N")
        slurm(sandbox, "scontrol", "requeuehold", job)
        eventually(lambda: squeue(sandbox, job, "%T") == "PENDING", "the router's job has been requeued")
        slurm(sandbox, "scontrol", "update", f"job={job}", f"excnodelist={node}")
        slurm(sandbox, "scontrol", "release", job)
        line = tunnel.says("the router of 'moving' is .* now; new connections go there")
        assert view["endpoint"].removesuffix("/v1") not in line
        assert ask(tunnel) == first
        assert {answer[:1] for answer in asking.end()} == {"{"}, "a request failed"
        assert sum("OPENAI_BASE_URL" in line for line in tunnel.out) == 1
        assert tunnel.interrupt() == 0
    finally:
        tunnel.process.kill()
        tunnel.ended()
        cluster_user.ok("stop", "moving")


def ask(tunnel: Tunnel) -> list[str]:
    """The models that the router behind a tunnel knows, by the key that the tunnel gives."""
    headers = {"Authorization": f"Bearer {tunnel.key}"}
    answer = httpx.get(f"{tunnel.url.removesuffix('/v1')}/status.json", headers=headers, timeout=120, trust_env=False)
    return [model["name"] for model in answer.raise_for_status().json()["models"]]


def slurm(sandbox, *argv: str) -> str:
    return subprocess.run(argv, env={**os.environ, **sandbox.env()}, check=True, capture_output=True, text=True).stdout


def squeue(sandbox, job: str, field: str) -> str:
    return slurm(sandbox, "squeue", "--noheader", f"--jobs={job}", f"--format={field}").strip()
