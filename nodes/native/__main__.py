"""`python -m slurminfer.nodes.native`: one model behind one port, until SIGTERM, SIGINT or the engine's end."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ...core.errors import SlurminferError, UsageError
from ...core.machine.libraries import prepare
from ...core.processes.process import accept_any_text, exit_at_once
from .options import EngineOptions, ParallelOptions, ServerOptions

_HELP = {
    "model": "directory of the model: config.json, safetensors, tokenizer.json",
    "dtype": "computed in, and stored in the KV cache; auto: the machine's fastest",
    "device": "auto: a GPU if PyTorch sees one",
    "quantization": "what the checkpoint must be (default: whatever it is)",
    "kernels": "of quantized weights: multiplied by a compiled library, by PyTorch, or made dense (exact); auto: exact "
    "with --dtype float32, else compiled where that is possible",
    "lm_head": "int8: read as 8 bits while one sequence runs; auto: so if that is faster and the model quantized",
    "context_length": "longest sequence in tokens (default: the model's)",
    "kv_cache_gib": "memory for the KV cache in GiB (default: by the machine's memory)",
    "kv_cache_dtype": "of the KV cache; auto: the dtype computed in; int8, int4: quantized by token and head",
    "block_size": "tokens in a KV block",
    "max_running_requests": "sequences computed at once",
    "max_batch_tokens": "tokens computed in one step, prompts and decodes together",
    "cuda_graphs": "on a GPU: record the steps that only decode when the model is loaded, and launch each as a whole",
    "age_weight": "shorter prompts first: tokens that a second of waiting makes up for; inf: first come, first served",
    "target_itl_ms": "milliseconds that a step with decoding sequences should take: prompts get what they leave of it; "
    "0: no target, for most tokens a second",
    "threads": "compute threads (default: the CPUs that this process may use)",
    "speculative": "guess tokens and check several in one step: by looking them up in the text, or by a smaller model",
    "draft_model": "directory of the smaller model; it must have the same tokenizer",
    "draft_tokens": "guessed for a sequence in a step, at most; how many are worth it is measured",
    "tensor_parallel": "processes that share each layer",
    "sequence_parallel": "processes, each of all layers of its stage, that share the tokens and the KV cache",
    "pipeline_parallel": "stages of layers, one after the other, each of tensor_parallel x sequence_parallel processes",
    "nodes": "that these processes are on",
    "node_rank": "this node's number; 0 answers HTTP",
    "local_rank": "this process's number on its node; 0 starts the others",
    "rank_cpus": "CPUs that each process of this node keeps to, as 0-31|32-63 (default: divided evenly)",
    "rendezvous": "HOST:PORT on node 0 where processes meet (default, on one node: a free port of loopback)",
    "host": "address to listen on",
    "port": "port to listen on (default: 8000, or none with --uds); 0: any free one, which is printed",
    "uds": "Unix socket to listen on, in a folder of mode 0700; then no port is opened unless --port is given too",
    "served_model_name": "what clients call the model (default: its directory's name)",
    "generation_config": "where requests do not say how to sample: as the model's generation_config.json says, or by "
    "OpenAI's defaults",
    "sse_keep_alive_s": "seconds without a token after which a stream gets a comment, so that proxies wait; 0: never",
    "tool_parser": "how the model writes calls of tools; auto: as its chat template does; none: they stay text",
    "reasoning_parser": "what the model thinks is told apart from its answer; auto: by the tags of its chat template; "
    "none: it stays text",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end; the exit status."""
    words = sys.argv[1:] if argv is None else argv
    values = vars(_parser().parse_args(words))
    try:
        server = ServerOptions(**_taken(ServerOptions, values))
        options = EngineOptions(**_taken(EngineOptions, values))
        parallel = ParallelOptions(**_taken(ParallelOptions, values))
        prepare()
        from .service import serve  # not before --help had its chance: it takes a moment to import

        if parallel.ranks > 1:
            from .model.parallel.start import run

            run(words, options, parallel, server)
        else:
            serve(options, server)
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m slurminfer.nodes.native", description=__doc__)
    for kind in (EngineOptions, ParallelOptions, ServerOptions):
        hints = get_type_hints(kind)
        for option in fields(kind):
            parser.add_argument(f"--{option.name.replace('_', '-')}", **_argument(option.name, hints[option.name]))
    return parser


def _argument(name: str, hint: Any) -> dict[str, Any]:
    """argparse's description of one field. An absent flag is left to the dataclass's default."""
    argument: dict[str, Any] = {"help": _HELP[name], "default": argparse.SUPPRESS}
    if get_origin(hint) in (UnionType, Union):  # X | None of a Literal is the latter
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is Literal:
        return {**argument, "choices": get_args(hint)}
    return {**argument, "type": hint, "required": name == "model", "metavar": name.rpartition("_")[2].upper()}


def _taken(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {option.name: values[option.name] for option in fields(kind) if option.name in values}


if __name__ == "__main__":
    accept_any_text()
    # The engine's thread may be deep in a load or a step: an ordinary exit would wait for it, or crash under it.
    exit_at_once(main())
