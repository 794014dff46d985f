"""Real engines' streams that are cut and go on at another worker, beside the undisturbed answers.

    python -m benchmarks.failover.model words --tokenizer DIR
    python -m benchmarks.failover words --engine vllm --python .venv-vllm/bin/python [-- ENGINE'S ARGUMENTS]

Part `cuts` cuts the streams of one engine after events here and there, and continues them by the router's code, without
a router. Part `kills` kills engines behind the router while they stream to many clients. Text, finish reason, usage,
role and id must be those of the undisturbed answer. `different, and so by token ids` are those where the engine does
not repeat its own answer when it is given exactly its tokens before the cut: differences of rounding, which a model of
`benchmarks.failover.model` does not have. `tokens_per_event` tells how wrong a count of tokens by events would be.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import kills
from .cuts import Cuts
from .engines import Engine, Engines
from .questions import questions
from .streams import Asker

PARTS = ("cuts", "kills")


async def cut(engine: Engine, given: argparse.Namespace) -> dict[str, Any]:
    """Part cuts."""
    async with Asker(engine.address.socket) as asker:
        found = await Cuts(given.engine, asker, given.cuts, given.at_once).run(questions(given.questions, given.tokens))
        return found.summary()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=("sglang", "vllm"), required=True)
    parser.add_argument("--python", help="the interpreter of the engine's environment")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--gpus", type=int, default=0, help="of each worker")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--kills", nargs="+", choices=list(kills.KILLS), default=list(kills.KILLS),
                        help="a worker each")  # fmt: skip
    parser.add_argument("--streams", type=int, default=48, help="at the same time in part kills")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--env", nargs="+", default=[], metavar="NAME=VALUE", help="of the engines")
    parser.add_argument("--start-seconds", type=float, default=300.0, help="that an engine may take to be ready")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=96, help="at most, of each answer")
    parser.add_argument("--cuts", type=int, default=5, help="of each answer in part cuts")
    parser.add_argument("--at-once", type=int, default=8, help="streams at the same time")
    parser.add_argument("--out", type=Path)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = parser.parse_args(sys.argv[1:at], argparse.Namespace(extra=sys.argv[at + 1 :]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # with its engines
    given.workers = 1 + len(given.kills) * ("kills" in given.part)
    record: dict[str, Any] = {"command": " ".join(sys.argv[1:])}
    with tempfile.TemporaryDirectory() as name, Engines(given, Path(name)) as engines:
        if "cuts" in given.part:
            record["cuts"] = asyncio.run(cut(engines.engines[0], given))
            print(json.dumps({"cuts": record["cuts"]}, indent=1, ensure_ascii=False), flush=True)
        if "kills" in given.part:
            record["kills"] = kills.run(Path(name), engines, given)
    if given.out:
        given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
