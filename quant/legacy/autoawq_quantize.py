"""Quantizes a model with AutoAWQ 0.2.9, on its CPU path in float32; autoawq.py runs this file.

    .venv-legacy/bin/python quant/legacy/autoawq_quantize.py MODEL OUT --group-size 64 --samples FILE --threads 2

It runs with the interpreter of .venv-legacy and imports nothing of slurminfer. FILE is JSON, a list of lists of token
ids. Standard output is one JSON object a line: {"layer": 1, "layers": 30, "seconds": 20.5} after each layer, and last
{"peak_bytes": 2000000000}, the most memory that the process had. With --layers N it ends after N layers and writes no
model: for timing.

AutoAWQ on a CPU destroys the model that it quantizes. For every candidate scale its search multiplies the weights in
place, and then puts back what it set aside before: `state_dict()`, moved to the CPU. From a GPU that is a copy; on a
CPU it is the weights themselves, multiplied by the first candidate. `Quantizer` makes it a copy, through the two doors
that the libraries have for such things: AutoAWQ's quantizer_cls and PyTorch's state_dict hooks.

float32, because float16 products are several times slower on CPUs without instructions for them; the file has float16.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from awq import AutoAWQForCausalLM  # type: ignore[import-not-found]
from awq.quantize.quantizer import AwqQuantizer  # type: ignore[import-not-found]

Report = Callable[[dict[str, Any]], None]

# Files that a quantized model has in common with its original.
SHARED = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("chat_template*", "generation_config.json"),
)


class Quantizer(AwqQuantizer):  # type: ignore[misc]
    """AutoAWQ's, which tells after each layer how long it took."""

    def __init__(self, *args: Any, report: Report, layers: int | None, **kwargs: Any) -> None:
        """`layers`: stop after that many."""
        super().__init__(*args, **kwargs)
        self._report, self._done = report, 0
        self.modules: torch.nn.ModuleList = self.modules[:layers]
        self._since = time.perf_counter()

    def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module2inspect: torch.nn.Module, *rest: Any) -> Any:
        hook = module2inspect.register_state_dict_post_hook(_copy_tensors)  # type: ignore[no-untyped-call]
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest)
        finally:
            hook.remove()

    def _apply_quant(self, module: torch.nn.Module, named_linears: dict[str, torch.nn.Linear]) -> None:
        """The last that is done with a layer."""
        super()._apply_quant(module, named_linears)
        now = time.perf_counter()
        self._done += 1
        self._report({"layer": self._done, "layers": len(self.modules), "seconds": round(now - self._since, 2)})
        self._since = now


def _copy_tensors(module: torch.nn.Module, state: dict[str, torch.Tensor], prefix: str, metadata: object) -> None:
    state.update({name: tensor.clone() for name, tensor in state.items()})


def quantize(args: argparse.Namespace, report: Report) -> None:
    """Write the directory `args.out`, or only time `args.layers` layers."""
    torch.set_num_threads(args.threads)
    samples = json.loads(args.samples.read_text(encoding="utf-8"))
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    model = AutoAWQForCausalLM.from_pretrained(
        str(args.model), torch_dtype=torch.float32, trust_remote_code=False, **rope(config)
    )
    model.quantize(
        quant_config={"w_bit": 4, "q_group_size": args.group_size, "zero_point": True, "version": "GEMM"},
        calib_data=samples,
        max_calib_samples=len(samples),
        # Longer samples would be dropped; shorter ones are joined and cut to this length.
        max_calib_seq_len=max(map(len, samples)),
        quantizer_cls=Quantizer,
        report=report,
        layers=args.layers,
    )
    if args.layers is None:
        save(model, args.model, args.out)


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 4's words for the rotary embedding in a config.json of transformers 5, which it would ignore."""
    parameters = dict(config.get("rope_parameters") or {})
    if not parameters:
        return {}
    theta = {"rope_theta": parameters.pop("rope_theta")} if "rope_theta" in parameters else {}
    scaled = parameters.get("rope_type", "default") != "default"
    return theta | ({"rope_scaling": parameters} if scaled else {})


def save(model: Any, source: Path, out: Path) -> None:
    """Write the checkpoint, in float16, and the files of SHARED."""
    model.model.half()
    model.save_quantized(str(out))
    for path in (path for pattern in SHARED for path in source.glob(pattern)):
        shutil.copyfile(path, out / path.name)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Quantize a model with AutoAWQ.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--samples", type=Path, required=True, help="JSON: a list of lists of token ids")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--layers", type=int, help="time the first so many layers and write nothing")
    return parser.parse_args(argv)


def main() -> None:
    """Standard output is for the reports alone: whatever the libraries print goes to standard error."""
    args = parse(sys.argv[1:])
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=reports, flush=True)

    quantize(args, report)
    report({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


if __name__ == "__main__":
    main()
