"""The compiled library against PyTorch's operations, by threads: which is faster on this CPU, and for what?

    python -m benchmarks.engine.paths --threads 2,8

A model of SmolLM2-135M's shape with random weights, in bfloat16 and in 4 bits: nothing is downloaded.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from slurminfer.jobs.bench.engine.job import numbers
from slurminfer.nodes.native.model.fused.store import finish_writing
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions

BATCHES, PREFILLS = (1, 8, 64), (512, 2048)
CONTEXT, BLOCK, GROUP, REPEATS = 128, 16, 64, 25


def random_model(path: Path, spread: float = 0.02) -> None:
    """Write SmolLM2-135M's shape with random weights of that standard deviation in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, initializer_range=spread,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.bfloat16().save_pretrained(path)


def in_four_bits(model: Path, out: Path) -> None:
    """Write a model's shape as an AWQ checkpoint: any words are codes, so these are random too."""
    shutil.copytree(model, out)
    tensors, words = load_file(out / "model.safetensors"), torch.iinfo(torch.int32)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        prefix, groups = name.removesuffix("weight"), inputs // GROUP
        for part, rows in (("qweight", inputs), ("qzeros", groups)):
            tensors[prefix + part] = torch.randint(words.min, words.max, (rows, outputs // 8), dtype=torch.int32)
        tensors[prefix + "scales"] = torch.full((groups, outputs), 0.002, dtype=torch.float16)
    save_file(tensors, out / "model.safetensors")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


def measure(model: Path, kernels: str, threads: int) -> list[float]:
    """Tokens per second: decode by batch, prefill by length."""
    options = EngineOptions(
        model=model, kernels=kernels, device="cpu", dtype="bfloat16", kv_cache_gib=1.0, context_length=4096,  # type: ignore[arg-type]
        threads=threads,
    )  # fmt: skip
    runner = load_model(options)
    finish_writing()
    blocks = CONTEXT // BLOCK + 1
    steps = [[Chunk([5], CONTEXT, list(range(blocks * i, blocks * (i + 1))), 1) for i in range(n)] for n in BATCHES]
    steps += [[Chunk(list(range(n)), 0, list(range(n // BLOCK)), 1)] for n in PREFILLS]

    def seconds(step: Sequence[Chunk]) -> float:
        began = time.perf_counter()
        runner.forward(step)
        return time.perf_counter() - began

    found = []
    for step in steps:
        tokens = sum(len(chunk.tokens) for chunk in step)
        seconds(step)
        found.append(tokens / statistics.median(seconds(step) for _ in range(REPEATS if len(step) > 1 else 5)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="2")
    threads = numbers("--threads", parser.parse_args().threads)
    table = Table("tokens/s", *(f"decode {n}" for n in BATCHES), *(f"prefill {n}" for n in PREFILLS))
    with tempfile.TemporaryDirectory() as name:
        dense, small = Path(name) / "dense", Path(name) / "small"
        random_model(dense)
        (dense / "tokenizer.json").touch()
        in_four_bits(dense, small)
        for count in threads:
            for model, bits in ((dense, "bfloat16"), (small, "4 bits")):
                for kernels in ("compiled", "torch"):
                    found = measure(model, kernels, count)
                    table.add_row(f"{count} threads, {bits}, {kernels}", *(f"{speed:.0f}" for speed in found))
    amx = "with AMX" if torch.cpu._is_amx_tile_supported() else "without AMX"
    Console().print(f"{torch.backends.cpu.get_cpu_capability()}, {amx}, PyTorch {torch.__version__}")
    Console().print(table)


if __name__ == "__main__":
    main()
