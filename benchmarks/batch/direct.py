"""The native engine in this process, without HTTP: python -m benchmarks.batch.direct MODEL ROWS.jsonl [OPTIONS].

ROWS has chat messages and max_tokens; all are queued at once, so that the engine's batch is always full. Prompts are
rendered and tokenized before the time is taken, answers are not made text of: what is timed is the engine alone.
Prints JSON: seconds, prompt_tokens, completion_tokens.
"""

import argparse
import gc
import json
import time
from pathlib import Path

from slurminfer.nodes.native.api.template.chat_template import find_source
from slurminfer.nodes.native.api.template.jinja import RenderCall, Template
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.nodes.native.tokenizer import Tokenizer

from .inputs import read_lines

_MOST_BYTES = 1 << 20


def prompts(model: Path, rows: Path) -> list[tuple[list[int], int]]:
    """The tokens of each row's prompt, and how many are to be generated."""
    tokenizer, source = Tokenizer(model), find_source(model)
    assert source is not None, f"{model} has no chat template"
    template, found = Template(source, tokenizer.special_tokens), []
    for row in read_lines(rows):
        call = RenderCall(
            messages=row["messages"], add_generation_prompt=True, continue_final_message=False, most_bytes=_MOST_BYTES
        )
        found.append((tokenizer.encode(template.render(call), add_special_tokens=False), int(row["max_tokens"])))
    return found


def generate(core: EngineCore, asked: list[tuple[list[int], int]]) -> list[Request]:
    """Greedy answers of just so many tokens."""
    made = []
    for number, (tokens, count) in enumerate(asked):
        made.append(Request(str(number), tokens, SamplingParams(max_tokens=count, temperature=0)))
        core.add(made[-1])
    while core.busy:
        core.step()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--kernels", default="auto", choices=["auto", "compiled"])
    parser.add_argument("--context-length", type=int, default=2048)
    parser.add_argument("--kv-cache-gib", type=float, default=1.0)
    given = parser.parse_args()
    options = EngineOptions(
        model=given.model,
        dtype=given.dtype,
        kernels=given.kernels,
        context_length=given.context_length,
        kv_cache_gib=given.kv_cache_gib,
    )
    core, asked = EngineCore(load_model(options), options), prompts(given.model, given.rows)
    generate(core, [(list(range(100, 120)), 4)])  # the first steps allocate
    gc.collect()
    gc.freeze()  # as the server does
    began = time.perf_counter()
    made = generate(core, asked)
    seconds = time.perf_counter() - began
    counts = {
        "prompt_tokens": sum(one.prompt_length for one in made),
        "completion_tokens": sum(one.generated for one in made),
    }
    print(json.dumps({"seconds": seconds} | counts))


if __name__ == "__main__":
    main()
