"""SGLang's own benchmark client before one engine: straight to it, and through our router with two relays, in turns.

    python -m benchmarks.gpu.serving MODEL [--streams 64,256,512] [--rounds 3] [-- ENGINE'S ARGUMENTS]

`sglang.benchmark.serving` (backend "vllm": OpenAI's /v1/completions, streamed) asks for random prompts, each over a
connection of its own. Straight, its connections go to the engine's Unix socket, as those of the router do; that is all
that is changed of it. Prints tokens/s and median time to the first token, and the router's CPU time a token.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import GIVEN
from .deployment import Deployment

WAYS = ("straight", "routed")
_LONGEST_S = 150.0  # of one run of the client
# Runs the client with all of its connections going to a Unix socket, if one is named.
_CLIENT = """
import os, runpy, sys
import aiohttp
path, made = os.environ.get("BENCH_SOCKET"), aiohttp.ClientSession.__init__
def make(self, *args, **options):
    if path:
        options["connector"] = aiohttp.UnixConnector(path)
    made(self, *args, **options)
aiohttp.ClientSession.__init__ = make
if path:
    import requests, requests.adapters, urllib3, socket
    class Connection(urllib3.connection.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(path)
    urllib3.connectionpool.HTTPConnectionPool.ConnectionCls = Connection
runpy.run_module("sglang.benchmark.serving", run_name="__main__", alter_sys=True)
"""


def ask(deployment: Deployment, way: str, streams: int, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run of the client; its own record of it. Raises SystemExit where it fails, or requests do."""
    endpoint = deployment.endpoint(way)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        words = [
            "--backend", "vllm", "--base-url", endpoint.url, "--model", endpoint.model, "--dataset-name", "random-ids",
            "--tokenizer", str(given.model), "--random-input-len", str(given.prompt), "--random-output-len",
            str(given.tokens), "--random-range-ratio", "1.0", "--num-prompts", str(streams * given.requests),
            "--max-concurrency", str(streams), "--seed", str(seed), "--output-file", str(out), "--disable-tqdm",
        ]  # fmt: skip
        env = GIVEN | {"OPENAI_API_KEY": endpoint.key, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # the tokenizer is a directory
        env |= {"BENCH_SOCKET": str(endpoint.socket)} if endpoint.socket else {}
        log = Path(folder) / "log"
        with log.open("wb") as said:
            argv = [sys.executable, "-c", _CLIENT, *words]
            try:
                status = subprocess.run(
                    argv, env=env, stdout=said, stderr=said, timeout=_LONGEST_S, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                status = -1
        if status or not out.exists():
            raise SystemExit(f"the client failed ({way}): {log.read_text(encoding='utf-8', errors='replace')[-4000:]}")
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8").splitlines()[-1])
    if record["completed"] != streams * given.requests:
        raise SystemExit(f"{way}: {record['completed']} of {streams * given.requests} requests were answered")
    return record


def compare(deployment: Deployment, streams: int, given: argparse.Namespace) -> dict[str, Any]:
    """Both ways in turns, so many rounds of both."""
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    firsts: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu = []
    for number in range(given.rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            before = deployment.router_cpu_s()
            record = ask(deployment, way, streams, given, seed=1000 * streams + 10 * number + WAYS.index(way))
            speeds[way].append(round(record["output_throughput"], 1))
            firsts[way].append(round(record["median_ttft_ms"], 1))
            if way == "routed":
                cpu.append((deployment.router_cpu_s() - before) / record["total_output_tokens"] * 1e6)
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    return {
        "streams": streams,
        "tokens_per_s": speeds,
        "first_token_ms": firsts,
        "ratio": medians["routed"] / medians["straight"],
        "router_cpu_us_per_token": statistics.median(cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", default="sglang")
    parser.add_argument("--streams", type=lambda text: [int(word) for word in text.split(",")], default=[64, 256, 512])
    parser.add_argument("--requests", type=int, default=3, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--out", type=Path)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    fixed = argparse.Namespace(
        extra=sys.argv[at + 1 :], workers=1, nodes=1, slurm=False, quantization=None, context=8192,
        tensor_parallel=1, sequence_parallel=1, pipeline_parallel=1, running=512,
    )  # fmt: skip
    given = parser.parse_args(sys.argv[1:at], fixed)
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(given, Path(folder))
        try:
            deployment.start()
            for way in WAYS:
                ask(deployment, way, 64, argparse.Namespace(**{**vars(given), "requests": 1}), seed=1)
            found = []
            for streams in given.streams:
                found.append(compare(deployment, streams, given))
                print(json.dumps(found[-1]), flush=True)
        finally:
            deployment.stop()
    if given.out:
        given.out.write_text(json.dumps({"command": sys.argv[1:], "found": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
