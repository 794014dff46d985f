"""Engines behind a router that are killed while they answer requests of all kinds."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.quantized_models import to_awq

from ...failover.engines import Engines
from ...fleet.model import write_model
from ...router.ours import ours
from .storm import Storm
from .workers import KILL, KILL_CORE, STOP, Workers

_TOKENS, _GROUP = 300, 32
_COMPILED = ("--kernels", "compiled")  # with the compiled library, every bit of an answer is the same again
_TAG = "{{ tag }}{#- <think> -#}"  # behind the template: a request can begin with a tag of thinking, or end it


@dataclass(frozen=True, slots=True)
class Setting:
    """What happens to which workers.

    Attributes:
        faults: one in a round, in turns; each happens at least once.
        losses: after how many lost workers of each kind of request no further round is needed.
        rounds: at most.
        workers: how many there are.
        replaces: whether another worker is started for one that is lost.
        extra: arguments of the engines.
        is_quantized: the model, to 4 bits.
        kinds: names of the requests; by default all.
    """

    faults: tuple[str, ...] = (KILL, KILL_CORE, STOP)
    losses: int = 2
    rounds: int = 15
    workers: int = 3
    replaces: bool = True
    extra: tuple[str, ...] = ()
    is_quantized: bool = False
    kinds: Sequence[str] | None = None


_CASES = {
    "bfloat16": Setting(),
    "speculative": Setting(extra=("--speculative", "ngram")),
    "4 bits": Setting(is_quantized=True),
}


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """Wrong answers of all rounds, each of which has one fault.

    `model` is not needed: a small random one answers more in the same time, and splits characters between events.
    """
    found = {}
    for name, setting in _CASES.items():
        with tempfile.TemporaryDirectory(prefix="slurminfer-") as folder:
            found[name] = run(Path(folder), Setting(faults=(KILL,), losses=0) if quick else setting)
    return {"wrong_answers": sum(each["wrong_answers"] for each in found.values()), **found}


def run(folder: Path, setting: Setting) -> dict[str, Any]:
    """What all rounds come to."""
    model = _model(folder / "model")
    if setting.is_quantized:
        to_awq(model, _GROUP)
    given = argparse.Namespace(
        engine="native", model=model, python=None, extra=(*_COMPILED, *setting.extra), gpus=0, threads=1, env=[],
        dtype="bfloat16", context=2048, workers=setting.workers, start_seconds=120.0,
    )  # fmt: skip
    with Engines(given, folder) as engines:
        addresses = [engine.address for engine in engines.engines]
        with ours(folder, addresses, capacity=64, engine="native") as target:
            assert target.records is not None
            workers = Workers(given, folder, engines.engines, target.records, replaces=setting.replaces)
            try:
                return asyncio.run(_run(target.url, target.key, workers, setting))
            finally:
                workers.close()


async def _run(url: str, key: str, workers: Workers, setting: Setting) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=240)
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout, connector=connector) as session:
        storm = Storm(workers, session, _TOKENS, setting.kinds)
        await storm.learn()
        faults, done = setting.faults, 0
        while done < setting.rounds and (done < len(faults) or storm.fewest_losses < setting.losses):
            await storm.round(faults[done % len(faults)])
            done += 1
        return {"rounds": done, "fewest_losses_of_a_kind": storm.fewest_losses, **storm.found.summary()}


def _model(folder: Path) -> Path:
    """A small random model whose chat template knows thinking."""
    folder.mkdir()
    write_model(folder, layers=2)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["chat_template"] += _TAG
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder
