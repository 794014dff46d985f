"""Engines behind a router that are killed while they answer requests of all kinds."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from ...failover.engines import Engines
from ...fleet.model import write_model
from ...router.ours import ours
from .storm import Storm
from .workers import KILL, KILL_CORE, STOP, Workers

_WORKERS, _TOKENS = 3, 300
_CASES: dict[str, tuple[str, ...]] = {"plain": (), "speculative": ("--speculative", "ngram")}
_FAULTS = (KILL, KILL_CORE, KILL, KILL, STOP)
_TAG = "{{ tag }}{#- <think> -#}"  # behind the template: a request can begin with a tag of thinking, or end it


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """Wrong answers of all rounds, each of which has one fault.

    `model` is not needed: a small random one answers more in the same time, and splits characters between events.
    """
    found = {}
    for name, extra in _CASES.items():
        with tempfile.TemporaryDirectory(prefix="slurminfer-") as folder:
            found[name] = run(Path(folder), 3 if quick else 20, extra=extra)
    return {"wrong_answers": sum(each["wrong_answers"] for each in found.values()), **found}


def run(folder: Path, rounds: int, *, extra: Sequence[str] = (), faults: Sequence[str] = _FAULTS) -> dict[str, Any]:
    """What rounds with these faults, in turns, come to. `extra`: arguments of the engines."""
    given = argparse.Namespace(
        engine="native", model=_model(folder / "model"), python=None, extra=extra, gpus=0, threads=1, env=[],
        dtype="float32", context=2048, workers=_WORKERS, start_seconds=120.0,
    )  # fmt: skip
    with Engines(given, folder) as engines:
        addresses = [engine.address for engine in engines.engines]
        with ours(folder, addresses, capacity=64, engine="native") as target:
            assert target.records is not None
            workers = Workers(given, folder, engines.engines, target.records)
            try:
                return asyncio.run(_run(target.url, target.key, workers, rounds, faults))
            finally:
                workers.close()


async def _run(url: str, key: str, workers: Workers, rounds: int, faults: Sequence[str]) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=240)
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout, connector=connector) as session:
        storm = Storm(workers, session, _TOKENS)
        await storm.learn()
        for number in range(rounds):
            await storm.round(faults[number % len(faults)])
        return {"rounds": rounds, **storm.found.summary()}


def _model(folder: Path) -> Path:
    """A small random model whose chat template knows thinking."""
    folder.mkdir()
    write_model(folder, layers=2)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["chat_template"] += _TAG
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder
