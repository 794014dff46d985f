"""`slurminfer batch` through router and worker against SGLang's own offline engine: same prompts, same GPU, in turns.

    python -m benchmarks.gpu.batch MODEL [--rows 8192] [--gpus 0,1] [-- SGLANG'S ARGUMENTS]

The offline engine (`sglang.Engine`) gets all prompts in one call. With two GPUs both ways run at the same time, each on
a GPU and half of the cores of its own, and then the other way round; with one GPU, one after the other. Starting an
engine is not counted; what a batch does before and after its requests is. Prints the record that it writes to --out.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .. import GIVEN
from .deployment import Deployment

WAYS = ("engine", "batch")
_WORDS = ("time", "light", "water", "stone", "number", "house", "river", "paper", "music", "garden", "letter", "window")


def write_rows(path: Path, given: argparse.Namespace) -> None:
    """JSON Lines: random words, so that no two prompts share a beginning; lengths of answers differ by up to half."""
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(given.rows):
            prompt = f"{number} " + " ".join(draw.choices(_WORDS, k=given.prompt))
            tokens = draw.randint(given.tokens // 2, given.tokens)
            row = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
            file.write(json.dumps(row) + "\n")


def engine(rows: Path, given: argparse.Namespace) -> dict[str, Any]:
    """SGLang in this process."""
    import sglang
    from sglang.srt.server_args import prepare_server_args

    words = [f"--model-path={given.model}", f"--max-running-requests={given.running}", "--log-level=error"]
    began = time.monotonic()
    offline = sglang.Engine(server_args=prepare_server_args([*words, *given.extra]))
    ready_s = time.monotonic() - began
    asked = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    prompts = [row["prompt"] for row in asked]
    sampling = [{"max_new_tokens": row["max_tokens"], "temperature": 0, "ignore_eos": True} for row in asked]
    offline.generate(prompts[:64], sampling[:64])
    offline.flush_cache()
    began = time.monotonic()
    answers = offline.generate(prompts, sampling)
    seconds = time.monotonic() - began
    tokens = sum(answer["meta_info"]["completion_tokens"] for answer in answers)
    offline.shutdown()
    return {"way": "engine", "ready_s": ready_s, "seconds": seconds, "rows": len(answers), "tokens": tokens}


def batch(rows: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Our command against a deployment of one worker."""
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(given, Path(folder))
        try:
            ready_s = deployment.start()
            warm, output = Path(folder) / "warm.jsonl", Path(folder) / "answers.jsonl"
            warm.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[:64]), encoding="utf-8")
            command = [sys.executable, "-m", "slurminfer", "batch"]
            subprocess.run([*command, warm, Path(folder) / "w.jsonl", "--run", deployment.name], env=GIVEN, check=True)
            began = time.monotonic()
            subprocess.run([*command, rows, output, "--run", deployment.name], env=GIVEN, check=True)
            seconds = time.monotonic() - began
            answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        finally:
            deployment.stop()
    tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
    return {"way": "batch", "ready_s": ready_s, "seconds": seconds, "rows": len(answers), "tokens": tokens}


def _turns(gpus: list[str]) -> list[list[tuple[str, str]]]:
    """Which way runs on which GPU, turn by turn."""
    if len(gpus) == 1:
        return [[(way, gpus[0])] for way in (*WAYS, *WAYS)]
    return [list(zip(WAYS, order, strict=True)) for order in (gpus[:2], gpus[1::-1])]


def _start(way: str, gpu: str, place: int, gpus: int, rows: Path, given: argparse.Namespace) -> subprocess.Popen[str]:
    cpus = sorted(os.sched_getaffinity(0))
    share = cpus[place * len(cpus) // gpus : (place + 1) * len(cpus) // gpus]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu.batch", *sys.argv[1:]],
        env={**GIVEN, "CUDA_VISIBLE_DEVICES": gpu, "BATCH_WAY": way, "BATCH_ROWS": str(rows)},
        preexec_fn=lambda: os.sched_setaffinity(0, share),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--prompt", type=int, default=128, help="words of each")
    parser.add_argument("--tokens", type=int, default=256, help="of the longest answers")
    parser.add_argument("--running", type=int, default=256, help="max_running_requests")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--gpus", default="0")
    parser.add_argument("--out", type=Path)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    fixed = argparse.Namespace(
        extra=sys.argv[at + 1 :], engine="sglang", workers=1, nodes=1, quantization=None, slurm=False,
        tensor_parallel=1, sequence_parallel=1, pipeline_parallel=1,
    )  # fmt: skip
    given = parser.parse_args(sys.argv[1:at], fixed)
    if way := os.environ.get("BATCH_WAY"):
        print(json.dumps({"engine": engine, "batch": batch}[way](Path(os.environ["BATCH_ROWS"]), given)), flush=True)
        return
    gpus = given.gpus.split(",")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, given)
        for turn in _turns(gpus):
            started = [_start(way, gpu, place, len(turn), rows, given) for place, (way, gpu) in enumerate(turn)]
            for process, (_, gpu) in zip(started, turn, strict=True):
                said = process.communicate()[0].strip().splitlines()
                if process.returncode:
                    raise SystemExit(f"exit status {process.returncode}: {said[-1:]}")
                results.append({"gpu": gpu, **json.loads(said[-1])})
                print(json.dumps(results[-1]), flush=True)
    speeds = {way: statistics.median(r["tokens"] / r["seconds"] for r in results if r["way"] == way) for way in WAYS}
    record = {
        "command": " ".join(sys.argv[1:]),
        "runs": results,
        "tokens_per_s": speeds,
        "efficiency_vs_engine": speeds["batch"] / speeds["engine"],
    }
    text = json.dumps(record, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
