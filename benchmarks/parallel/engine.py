"""The engines of `python -m benchmarks.parallel`: processes of this machine, or a worker over two nodes of Slurm."""

import asyncio
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from slurminfer.core.net.identity import client_context
from slurminfer.core.rundir import RunDirectory
from slurminfer.core.workers.parallel import ParallelDegrees

from .. import GIVEN

_COUNTERS = ("steps", "step_seconds", "communication_seconds")
_TIMED, _ROUNDS = 32, 3  # tokens of each sequence
_SPEC = """
name = "{name}"
[model]
path = "{model}"
dtype = "{dtype}"
context_length = 1024
[[pool]]
name = "cpu"
engine = "native"
nodes = {nodes}
{degrees}
cpus_per_task = {cpus}
extra_args = ["--kv-cache-gib", "0.5"]
[router]
port = 0
"""


@dataclass(frozen=True)
class Timed:
    """Steps that decode so many sequences at once."""

    step_ms: float  # from begin to end: of a pipeline, several steps are on their way at a time
    communication_ms: float  # of each, at rank 0; waiting for other ranks included
    tokens_s: float  # by the clock


@dataclass(frozen=True)
class ServedEngine:
    """A running engine."""

    url: str
    key: str = ""
    model: str = "m"
    verify: ssl.SSLContext | bool = True

    def answers(self, prompts: Sequence[str], tokens: int, at_once: int) -> list[list[str]]:
        """Greedy answers, token by token."""
        return asyncio.run(self._answers(prompts, tokens, at_once))

    def timed(self, prompts: Sequence[str], batch: int) -> Timed:
        """The fastest of some rounds."""
        self.answers(prompts[:batch], 4, batch)  # their prompts are in the prefix cache then
        return min((self._round(prompts[:batch]) for _ in range(_ROUNDS)), key=lambda one: one.step_ms)

    def _round(self, prompts: Sequence[str]) -> Timed:
        before, began = self._counters(), time.perf_counter()
        self.answers(prompts, _TIMED, len(prompts))
        elapsed = time.perf_counter() - began
        steps, seconds, others = (now - then for now, then in zip(self._counters(), before, strict=True))
        return Timed(1000 * seconds / steps, 1000 * others / steps, len(prompts) * _TIMED / elapsed)

    async def _answers(self, prompts: Sequence[str], tokens: int, at_once: int) -> list[list[str]]:
        room = asyncio.Semaphore(at_once)
        async with httpx.AsyncClient(
            base_url=self.url, headers=self._headers, verify=self.verify, timeout=600, trust_env=False
        ) as client:

            async def answer(prompt: str) -> list[str]:
                body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
                        "ignore_eos": True, "logprobs": 0}  # fmt: skip
                async with room:
                    said = await client.post("/v1/completions", json=body)
                said.raise_for_status()
                found: list[str] = said.json()["choices"][0]["logprobs"]["tokens"]
                return found

            return await asyncio.gather(*map(answer, prompts))

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _counters(self) -> list[float]:
        text = httpx.get(f"{self.url}/metrics", headers=self._headers, verify=self.verify, trust_env=False).text
        found = [re.search(rf"^slurminfer_engine_{name}_total (.*)$", text, re.MULTILINE) for name in _COUNTERS]
        return [float(match[1]) for match in found if match]


@contextmanager
def here(model: Path, dtype: str, degrees: ParallelDegrees, *options: str) -> Iterator[ServedEngine]:
    """Serve with all ranks on this machine, and end them afterwards. `options` are further flags of the engine."""
    parallel = [f"--{key.replace('_', '-')}={size}" for key, size in degrees.by_key().items() if degrees.ranks > 1]
    argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(model), "--served-model-name=m", "--port=0",
            f"--dtype={dtype}", "--kv-cache-gib=0.5", "--context-length=1024", *parallel, *options]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", env=GIVEN)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://\S+:\d+", line)))
        if not any(line.startswith("ready") for line in lines):
            raise SystemExit(f"{' '.join(argv)}: exit status {process.wait()}")
        yield ServedEngine(url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def over_nodes(model: Path, dtype: str, degrees: ParallelDegrees) -> Iterator[ServedEngine]:
    """A worker of two nodes, or of one if it is one process; stopped afterwards."""
    name = f"bench-parallel-{degrees.tensor_parallel}x{degrees.pipeline_parallel}"
    nodes = min(degrees.ranks, 2)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.toml"
        spec.write_text(
            _SPEC.format(
                name=name, model=model, dtype=dtype, nodes=nodes, cpus=max(degrees.ranks // nodes, 2 // nodes),
                degrees="\n".join(f"{key} = {size}" for key, size in degrees.by_key().items()),
            )
        , encoding="utf-8")  # fmt: skip
        try:
            _slurminfer("serve", str(spec), "--wait")
            run = RunDirectory.existing(name)
            record = run.read_workers()[0]
            assert record.url is not None, "a worker of Slurm that is ready has one"
            identity = client_context(run.worker_identity_path(record.id, record.epoch))
            yield ServedEngine(record.url, record.key, model.name, identity)
        finally:
            _slurminfer("stop", name)
            shutil.rmtree(RunDirectory.named(name).path)


def _slurminfer(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slurminfer", *words], env=GIVEN, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise SystemExit(f"slurminfer {' '.join(words)}: {done.stdout}{done.stderr}")
