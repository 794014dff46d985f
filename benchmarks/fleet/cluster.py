"""A sandbox of Slurm with an ordinary user in it, who serves a deployment; and how to break parts of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from slurminfer.slurm.sandbox import Sandbox, processes

from ..router.targets import Target

USER = "slurminfer-chaos"
_PATIENCE_S = 200.0

Seen = TypeVar("Seen")


def wait(look: Callable[[], Seen], what: str, patience_s: float = _PATIENCE_S) -> Seen:
    """What `look` returns, once that is true. Raises RuntimeError with `what` after so many seconds."""
    until = time.monotonic() + patience_s
    while not (seen := look()):
        if time.monotonic() > until:
            raise RuntimeError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.2)
    return seen


class Cluster:
    """A running sandbox, and its user's home.

    Args:
        box: the sandbox.
        home: SLURMINFER_HOME of the user.
    """

    def __init__(self, box: Sandbox, home: Path, user: str = USER) -> None:
        self.box, self.home, self.user = box, home, user
        self._lost: set[str] = set()  # nodes without power

    def slurminfer(self, *words: str | Path) -> str:
        """The output of a command of slurminfer's on the head node. Raises RuntimeError where it fails."""
        return self._as_user(sys.executable, "-m", "slurminfer", *map(str, words))

    def popen(self, *words: str | Path) -> "subprocess.Popen[str]":
        """The same command, started and left running."""
        argv = self.box.argv_as(self.user, [sys.executable, "-m", "slurminfer", *map(str, words)], self._env())
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")

    def slurm(self, *argv: str) -> str:
        """The output of a command of Slurm's, as root. Raises CalledProcessError."""
        return subprocess.check_output(argv, env={**os.environ, **self.box.env()}, encoding="utf-8")

    def submit(self, *options: str) -> str:
        """The id of a job of the user's that sleeps."""
        return self._as_user("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap=sleep 600").strip()

    def status(self, name: str) -> dict[str, Any]:
        """A deployment's status, as `slurminfer status --json` says it."""
        found: dict[str, Any] = json.loads(self.slurminfer("status", name, "--json"))[0]
        return found

    def record(self, name: str, file: str) -> dict[str, Any]:
        """A JSON file of a deployment's run directory; empty if it is not there."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.home / "runs" / name / file).read_text(encoding="utf-8"))
            return found
        return {}

    def worker(self, name: str, worker: str) -> dict[str, Any]:
        """The record that a worker's agent keeps."""
        return self.record(name, f"workers/{worker}.json")

    def wait_ready(self, name: str, worker: str, epoch: int = 0) -> dict[str, Any]:
        """The record of a worker as soon as it is ready in this life of its job or a later one."""

        def look() -> dict[str, Any] | None:
            record = self.worker(name, worker)
            return record if record and record["state"] == "ready" and record["epoch"] >= epoch else None

        found = wait(look, f"{worker} is ready")
        assert found is not None
        return found

    def target(self, name: str) -> Target:
        """The endpoint of a deployment, where it is now."""
        key = (self.home / "runs" / name / "key").read_text(encoding="utf-8").strip()
        return Target(name, self.record(name, "router.json")["url"], key)

    def page(self, name: str, path: str) -> dict[str, Any]:
        """What the router answers to GET."""
        target = self.target(name)
        argv = ["curl", "-sS", "-m", "10", "-H", f"Authorization: Bearer {target.key}", target.url + path]
        found: dict[str, Any] = json.loads(subprocess.check_output(argv, encoding="utf-8"))
        return found

    def node_of(self, job: str) -> str:
        """The node on which a job runs; empty if it does not."""
        return self.slurm("squeue", "--noheader", f"--jobs={job}", "--states=RUNNING", "--format=%N").strip()

    def started_at(self, job: str) -> float:
        """The Unix time at which a job has started."""
        argv = ["env", "SLURM_TIME_FORMAT=%s", "squeue", "--noheader", f"--jobs={job}", "--format=%S"]
        return float(self.slurm(*argv))

    def workers(self, name: str) -> list[dict[str, Any]]:
        """The records of all workers."""
        paths = (self.home / "runs" / name / "workers").glob("*.json")
        return [found for path in sorted(paths) if (found := self.record(name, f"workers/{path.name}"))]

    def kill(self, job: str, word: str = "") -> int:
        """End with SIGKILL the processes of a job, or those with a word in their command line; how many they were."""
        return self.signal(job, word, signal.SIGKILL)

    def signal(self, job: str, word: str, number: signal.Signals) -> int:
        """Send a signal to the processes of a job, or those with a word in their command line; how many they were."""
        reached = 0
        for machine in processes.machines(self.box.directory).values():
            for pid in processes.inside(machine):
                with suppress(OSError):
                    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    is_task = f"SLURM_JOB_ID={job}".encode() in environ and b"SLURM_PROCID=0" in environ
                    if is_task and (not word or word.encode() in words):
                        os.kill(pid, number)
                        reached += 1
        return reached

    def ask(self, name: str, fields: dict[str, Any], timeout_s: int = 300) -> dict[str, Any]:
        """The answer to a request for a completion."""
        target = self.target(name)
        argv = ["curl", "-sS", "-m", str(timeout_s), "-H", f"Authorization: Bearer {target.key}"]
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(fields), target.url + "/v1/completions"]
        found: dict[str, Any] = json.loads(subprocess.check_output(argv, encoding="utf-8"))
        return found

    def lose_node(self, node: str) -> None:
        """Cut a node's power, and tell Slurm."""
        self._lost.add(node)
        self.box.node_off(node)
        self.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=chaos")

    def restore_nodes(self) -> None:
        """Give the lost nodes their power back."""
        while self._lost:
            self.box.node_up(self._lost.pop())

    def _as_user(self, *argv: str) -> str:
        done = self.box.run_as(self.user, argv, self._env(), timeout_s=300)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv[:6])}: {done.stdout}{done.stderr}")
        return done.stdout

    def _env(self) -> Mapping[str, str]:
        found = {
            name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ
        }  # the checkout that is measured
        return found | {"SLURMINFER_HOME": str(self.home)}


@contextmanager
def running(directory: Path, nodes: int) -> Iterator[Cluster]:
    """A sandbox of so many nodes in a new directory, until the `with` ends. Needs root, and Slurm's packages."""
    directory.mkdir(mode=0o755)
    box = Sandbox(directory / "box", nodes=nodes)
    box.start()
    try:
        home = directory / "home"
        home.mkdir(mode=0o700)
        box.give(USER, home)
        yield Cluster(box, home)
    finally:
        box.stop()
        shutil.rmtree(directory)
