"""AWQ as slurminfer makes it, against AutoAWQ: time, quality, memory; and what 4 bits are worth in speed.

    SmolLM2-135M   ours, AutoAWQ, ours: same samples, same group, same threads; then both checkpoints' perplexities
    stories15M     the one small model in original precision: what AWQ loses, and what rounding to nearest loses
    TinyLlama-1.1B memory at its peak, against the size of the weights
    SmolLM2-135M   the engine's tokens/s with our 4 bits against the original in the machine's dtype

Prints a table and writes benchmarks/results/quant.json. Takes about half an hour on two cores, most of it AutoAWQ's;
needs `make legacy` and npm.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from slurminfer.core.files import write_atomic
from slurminfer.jobs.evaluate.evaluate import evaluate
from slurminfer.jobs.evaluate.worker import EngineResult, EvaluateTask
from slurminfer.nodes.native.perplexity import Perplexity
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.awq.calibration import calibration_tokens
from slurminfer.quant.awq.export import copy_other_files
from slurminfer.quant.awq.rounding import fit, grouped, make_grid
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.files import stored_bytes
from slurminfer.quant.checkpoint.tensors import LINEARS, layer_prefix, linear_shape, tensor_shapes
from slurminfer.quant.checkpoint.weights import Weights
from slurminfer.quant.legacy import autoawq
from slurminfer.quant.models import resolve
from slurminfer.quant.progress import silent
from slurminfer.quant.texts import read_text

from ..machine import MIB, machine
from ..npm_models import stories15m, tinyllama

RESULTS = Path(__file__).parents[1] / "results" / "quant.json"
AUTOAWQ = Path(autoawq.__file__).with_name("autoawq_quantize.py")
SAMPLES, LENGTH = 64, 64  # AutoAWQ takes 20 s or more a layer for these
WINDOW = 256
PARTS = ("against_autoawq", "stories15M", "memory", "speed")
CPUS = len(os.sched_getaffinity(0))


def ours(model: Path, out: Path, samples: int, length: int, group_size: int, text: str = "c4") -> dict[str, Any]:
    """Quantize with the command; wall seconds in all, seconds of each layer, and its peak memory."""
    argv = [sys.executable, "-m", "slurminfer", "quantize", str(model), str(out), f"--calibration={text}"]
    argv += [f"--samples={samples}", f"--sample-length={length}", f"--group-size={group_size}"]
    wall, peak = _timed(argv, subprocess.DEVNULL)
    layers = [
        layer["seconds"] for layer in json.loads((out / "quantization.json").read_text(encoding="utf-8"))["layers"]
    ]
    return {"wall_s": wall, "layer_s": layers, "peak_bytes": peak}


def theirs(model: Path, out: Path, samples: Sequence[Sequence[int]], group_size: int, layers: int) -> dict[str, Any]:
    """Quantize with AutoAWQ; all layers if `layers` is 0, else its first ones and no checkpoint."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(samples, file)
        file.flush()
        argv = [str(autoawq.interpreter()), str(AUTOAWQ), str(model), str(out), f"--samples={file.name}"]
        argv += [f"--group-size={group_size}", f"--threads={CPUS}"]
        began = time.monotonic()
        done = subprocess.run(argv + [f"--layers={layers}"] * bool(layers), stdout=subprocess.PIPE, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        "wall_s": time.monotonic() - began,
        "layer_s": [line["seconds"] for line in lines if "layer" in line],
        "peak_bytes": lines[-1]["peak_bytes"],
    }


def _timed(argv: list[str], stderr: int) -> tuple[float, int]:
    """Wall seconds and peak memory in bytes of a command that must succeed."""
    began = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(argv)} failed")
    return time.monotonic() - began, usage.ru_maxrss * 1024


def perplexity(
    model: Path, text: str, windows: int, skip: int = 0, *, dtype: str = "float32", chunk: int = WINDOW
) -> Perplexity:
    """On `windows` pieces of a text behind its first `skip` tokens, computed in steps of `chunk` of them.

    Of a checkpoint's weights computed in float32, unless another dtype is named.
    """
    tokenizer = Tokenizer(model)
    begins = tokenizer.encode("a", add_special_tokens=True)[:1] == [tokenizer.bos_id]
    tokens = tokenizer.encode(read_text(text), add_special_tokens=False)[skip:][: windows * (WINDOW - begins)]
    task = EvaluateTask(
        model=str(model),
        options={"dtype": dtype},
        tokens=tuple(tokens),
        bos_id=tokenizer.bos_id if begins else None,
        window=WINDOW,
        chunk=chunk,
        batches=(),
    )
    argv = [sys.executable, "-m", "slurminfer.jobs.evaluate.worker"]
    done = subprocess.run(argv, input=msgspec.json.encode(task), stdout=subprocess.PIPE, check=True)
    return Perplexity(msgspec.json.decode(done.stdout, type=EngineResult).losses)


def round_to_nearest(model: Path, out: Path, group_size: int) -> None:
    """The model with every linear weight rounded as it is: no scales, no clipping. Dense float32."""
    config, weights = read_config(model), Weights(model, torch.float32)
    tensors = {
        "model.embed_tokens.weight": weights.read("model.embed_tokens.weight", config.vocab_size, config.hidden_size),
        "model.norm.weight": weights.read("model.norm.weight", config.hidden_size),
    }
    for index in range(config.num_layers):
        for name, shape in tensor_shapes(config).items():
            tensor = weights.read(f"{layer_prefix(index)}{name}", *shape)
            if name.removesuffix(".weight") in LINEARS:
                groups = grouped(tensor, group_size)
                tensor = make_grid(*fit(groups)).round(groups).view(shape)
            tensors[f"{layer_prefix(index)}{name}"] = tensor
    out.mkdir()
    copy_other_files(model, out)
    (out / "config.json").write_text((model / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    save_file(tensors, out / "model.safetensors")


def against_autoawq(model: Path, folder: Path, layers: int) -> dict[str, Any]:
    """Time of both, ours before and after; and both checkpoints' perplexities, if AutoAWQ did all layers."""
    group_size = 64
    samples = calibration_tokens(model, "c4", SAMPLES, LENGTH, silent).tolist()
    runs = {"ours": [ours(model, folder / "ours", SAMPLES, LENGTH, group_size)]}
    runs["autoawq"] = [theirs(model, folder / "autoawq", samples, group_size, layers)]
    runs["ours"].append(ours(model, folder / "again", SAMPLES, LENGTH, group_size))
    total = read_config(model).num_layers
    seconds = {
        name: total * statistics.median(s for run in found for s in run["layer_s"]) for name, found in runs.items()
    }
    result: dict[str, Any] = {
        "samples": [SAMPLES, LENGTH],
        "group_size": group_size,
        "autoawq_layers_timed": len(runs["autoawq"][0]["layer_s"]),
        "layers": total,
        "seconds": seconds,  # the median layer, times the number of layers, of both
        "runs": runs,
    }
    if not layers:
        checkpoints = {"fp32": model, "ours": folder / "ours", "autoawq": folder / "autoawq"}
        result["perplexity"] = {name: perplexity(path, "wiki", 64).value for name, path in checkpoints.items()}
    return result


def quality(folder: Path) -> dict[str, Any]:
    """stories15M, calibrated on the beginning of TinyStories text and measured on its end."""
    model, group_size, samples = stories15m(), 32, 128
    ours(model, folder / "stories", samples, WINDOW, group_size, "tiny")
    round_to_nearest(model, folder / "nearest", group_size)
    checkpoints = {"fp32": model, "awq": folder / "stories", "rtn": folder / "nearest"}
    skip = samples * WINDOW
    found = {name: perplexity(path, "tiny", 96, skip).value for name, path in checkpoints.items()}
    return {"group_size": group_size, "perplexity": found}


def memory(folder: Path) -> dict[str, Any]:
    """Peak memory of quantizing a model whose layers are many times a process's own size."""
    model = tinyllama()
    run = ours(model, folder / "tinyllama", 16, 256, 64)
    config = read_config(model)
    layer = sum(outputs * inputs for outputs, inputs in (linear_shape(config, name) for name in LINEARS))
    return run | {"weights_bytes": stored_bytes(model), "layer_float32_bytes": 4 * layer}


def speed(model: Path, folder: Path) -> dict[str, Any]:
    """What `slurminfer evaluate` measures; its page is kept."""
    checkpoint = folder / "ours"
    if not checkpoint.exists():
        ours(model, checkpoint, SAMPLES, LENGTH, 64)
    evaluation = evaluate(model, checkpoint)
    shutil.copyfile(checkpoint / "evaluation.png", RESULTS.with_suffix(".png"))
    return {
        variant.name: {"perplexity": variant.perplexity, "decode": variant.decode_tokens_per_s}
        for variant in evaluation.variants
    } | {"ratio": evaluation.speedup(1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoawq-layers", type=int, default=0, help="time only so many; 0: all, for its perplexity")
    parser.add_argument("--only", choices=PARTS, help="measure this again, and keep the other results of before")
    args = parser.parse_args()
    model, wanted = resolve("demo"), [args.only] if args.only else PARTS
    record: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if args.only else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure: dict[str, Callable[[], dict[str, Any]]] = {
            "against_autoawq": lambda: against_autoawq(model, folder, args.autoawq_layers),
            "stories15M": lambda: quality(folder),
            "memory": lambda: memory(folder),
            "speed": lambda: speed(model, folder),
        }
        for part in wanted:
            state = machine()
            date = datetime.now(UTC).isoformat(timespec="seconds")
            record[part] = {"date": date, "machine": state, **measure[part]()}
    record["ratios"] = ratios(record)
    report(record)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(RESULTS, json.dumps(record, indent=2) + "\n", mode=None)


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """What is compared, by name; AutoAWQ's perplexity only where it quantized all layers."""
    seconds, stories = record["against_autoawq"]["seconds"], record["stories15M"]["perplexity"]
    found = {
        "awq_time_vs_autoawq": seconds["ours"] / seconds["autoawq"],
        "ppl_vs_fp32": stories["awq"] / stories["fp32"],
        "ppl_rtn_vs_fp32": stories["rtn"] / stories["fp32"],
        "peak_memory_vs_weights": record["memory"]["peak_bytes"] / record["memory"]["weights_bytes"],
        "int4_tok_s_vs_bf16": record["speed"]["ratio"],
    }
    both = record["against_autoawq"].get("perplexity")
    return found | ({"ppl_vs_autoawq": both["ours"] / both["autoawq"]} if both else {})


def report(record: dict[str, Any]) -> None:
    """Print the ratios as a table, and the figures behind them."""
    goals = {"awq_time_vs_autoawq": "at most 0.1", "ppl_vs_autoawq": "at most 1.005", "ppl_vs_fp32": "below RTN's"}
    table = Table("ratio", "found", "goal")
    for name, value in record["ratios"].items():
        table.add_row(name, f"{value:.4f}", goals.get(name, ""))
    console, peer = Console(), record["against_autoawq"]
    console.print(table)
    timed = "all layers" if peer["autoawq_layers_timed"] == peer["layers"] else f"{peer['autoawq_layers_timed']} layers"
    console.print(
        f"SmolLM2: {peer['seconds']['ours']:.0f} s against {peer['seconds']['autoawq']:.0f} s (AutoAWQ: {timed} timed)"
    )
    console.print(f"perplexities: {peer.get('perplexity')}, stories15M: {record['stories15M']['perplexity']}")
    console.print(f"TinyLlama: peak {record['memory']['peak_bytes'] / MIB:.0f} MiB; see {RESULTS}")


if __name__ == "__main__":
    main()
