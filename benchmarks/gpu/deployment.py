"""A deployment on this machine's GPUs, or of Slurm's, for the benchmarks of this folder."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from slurminfer.core.net.identity import make_identity
from slurminfer.core.records import WorkerRecord
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.workers.parallel import ParallelDegrees

from .. import GIVEN
from .load import ModelEndpoint

_SPEC = """
name = "{name}"
[model]
path = "{model}"
context_length = {context}
{model_lines}
[[pool]]
engine = "{engine}"
workers = {workers}
nodes = {nodes}
{degrees}
gpus_per_node = {gpus}
cpus_per_task = {cpus}
max_running_requests = {running}
extra_args = {extra}
[router]
port = 0
relays = 2
"""


class Deployment:
    """What `slurminfer serve --local --wait` has started."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.name = f"gpu-{given.engine}-{os.getpid()}"
        spec = folder / "spec.toml"
        cpus = max(1, len(os.sched_getaffinity(0)) // (given.workers * given.nodes))
        lines = f'quantization = "{given.quantization}"' if given.quantization else ""
        degrees = ParallelDegrees(
            tensor_parallel=given.tensor_parallel,
            sequence_parallel=given.sequence_parallel,
            pipeline_parallel=given.pipeline_parallel,
        )
        spec.write_text(_SPEC.format(
            name=self.name, model=given.model.resolve(), engine=given.engine, workers=given.workers, nodes=given.nodes,
            degrees="\n".join(f"{key} = {size}" for key, size in degrees.by_key().items()),
            gpus=degrees.ranks // given.nodes,
            cpus=cpus, extra=json.dumps(given.extra), model_lines=lines, context=given.context, running=given.running,
        ), encoding="utf-8")  # fmt: skip
        self.run = RunDirectory.named(self.name)
        self._serve = ("serve", str(spec), "--wait", *(() if given.slurm else ("--local",)))
        self._asked = given.workers
        self._identity = folder / "gate.pem"
        self._gate: subprocess.Popen[bytes] | None = None
        self._gate_port = 0

    def start(self) -> float:
        """Seconds until all workers are ready."""
        began = time.monotonic()
        self._call(*self._serve)
        while len(self.workers()) < self._asked:  # --wait returns with the first
            time.sleep(0.5)
        return time.monotonic() - began

    def workers(self) -> list[WorkerRecord]:
        """Those that are ready."""
        return [record for record in self.run.read_workers() if record.state == "ready"]

    def endpoint(self, way: str) -> ModelEndpoint:
        """The first worker's engine "straight" or behind a "gate", or the router ("routed")."""
        worker = self.workers()[0]
        if way == "routed":
            record = self.run.read_router()
            assert record is not None and record.url is not None
            return ModelEndpoint(record.url, self.run.key(), worker.model)
        if worker.url is not None:  # a job's
            identity = self.run.worker_identity_path(worker.id, worker.epoch)
            return ModelEndpoint(worker.url, worker.key, worker.model, identity=identity)
        if way == "straight":
            return ModelEndpoint("http://engine", worker.key, worker.model, socket=worker.socket)
        return ModelEndpoint(self._gate_url(worker), worker.key, worker.model, identity=self._identity)

    def _gate_url(self, worker: WorkerRecord) -> str:
        """Where a gate stands before a local worker, which has none itself; it is started at the first call."""
        if self._gate is None:
            make_identity(self._identity, "gate")
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self._gate_port, fd = listener.getsockname()[1], listener.fileno()
                words = [f"--fd={fd}", f"--identity={self._identity}", f"--socket={worker.socket}"]
                argv = [sys.executable, "-m", "slurminfer.nodes.gate", *words]
                self._gate = subprocess.Popen(argv, pass_fds=[fd], env=GIVEN)
        return f"https://127.0.0.1:{self._gate_port}"

    def router_cpu_s(self) -> float:
        """CPU time that the router, processes of this machine, has taken so far."""
        record = self.run.read_router()
        assert record is not None
        router = psutil.Process(record.pid)
        return sum(sum(process.cpu_times()[:2]) for process in (router, *router.children(recursive=True)))

    def stop(self) -> None:
        """End all its jobs, and the gate."""
        if self._gate is not None:
            self._gate.terminate()
            self._gate.wait()
        self._call("stop", self.name)

    def _call(self, *words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "slurminfer", *words], env=GIVEN, check=False)
        if done.returncode:
            raise SystemExit(f"slurminfer {' '.join(words)}: exit status {done.returncode}")
