"""Embeddings: texts per second of our server and of sentence-transformers, and whether the vectors are the same.

Both serve the same model directory, the demo model with the last token pooled, in processes of their own with all CPUs,
in turns. sentence-transformers is that of .venv-sentence-transformers, if there is one; else transformers is called as
it does: texts sorted by length, in batches of 32.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai

from . import embedding_peer

ROOT = Path(__file__).parents[2]
_PYTHON = ROOT / ".venv-sentence-transformers/bin/python"
_QUESTIONS = ROOT / "examples/data/gsm8k-40.jsonl"
_DTYPES = ("bfloat16", "float32")
_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
_START_S = 180.0

Embed = Callable[[Sequence[str]], np.ndarray]


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """Texts/s in turns, and the smallest cosine similarity of two vectors of a text."""
    texts, rounds = sentences(20 if quick else 135), 1 if quick else 3
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurminfer-embeddings-")))
        directory = embedding_model(model, folder / "model")
        sides: dict[str, Embed] = {}
        for dtype in _DTYPES:
            sides[f"ours {dtype}"] = stack.enter_context(ours(directory, dtype, folder / f"{dtype}.log"))
            sides[f"peer {dtype}"] = stack.enter_context(peer(directory, dtype))
        return {"texts": len(texts), "peer": "sentence-transformers" if _PYTHON.exists() else "transformers"} | compare(
            sides, texts, rounds
        )


def compare(sides: dict[str, Embed], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Each round's texts begin otherwise: no side has seen any beginning before."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    vectors: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):  # the first one warms up
        asked = [f"{number}. {text}" for text in texts]
        for name, embed in sides.items():
            began = time.perf_counter()
            vectors[name] = embed(asked)
            if number:
                seconds[name].append(time.perf_counter() - began)
    rates = {name: len(texts) / statistics.median(taken) for name, taken in seconds.items()}
    found: dict[str, Any] = {"texts_per_s": rates, "seconds": seconds}
    for dtype in _DTYPES:
        found[f"speedup_{dtype}"] = rates[f"ours {dtype}"] / rates[f"peer {dtype}"]
        likeness = (vectors[f"ours {dtype}"] * vectors["peer float32"]).sum(1)
        found[f"likeness_{dtype}"] = float(likeness.min())
    return found


def sentences(count: int) -> list[str]:
    """The first ones of GSM8K's questions, about 17 tokens each."""
    lines = map(json.loads, _QUESTIONS.read_text(encoding="utf-8").splitlines())
    questions = [line["messages"][-1]["content"] for line in lines]
    return [part for text in questions for part in re.split(r"(?<=[.?!]) ", text) if len(part) > 3][:count]


def embedding_model(model: Path, directory: Path) -> Path:
    """The model's files, with those by which both sides pool the last token and normalise."""
    (directory / "1_Pooling").mkdir(parents=True)
    for file in model.iterdir():
        (directory / file.name).symlink_to(file.resolve())
    (directory / "modules.json").write_text(json.dumps(_MODULES), encoding="utf-8")
    size = json.loads((model / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    pooling = {"word_embedding_dimension": size, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return directory


@contextmanager
def ours(model: Path, dtype: str, log: Path) -> Iterator[Embed]:
    """Our server, through OpenAI's client, all texts in one request."""
    argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(model), "--served-model-name", "m"]
    argv += ["--host", "127.0.0.1", "--port", "0", "--dtype", dtype]
    argv += ["--kv-cache-gib", "0.5", "--context-length", "2048"]
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8")
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        if found is None:
            raise RuntimeError(f"our engine does not start: {log.read_text(encoding='utf-8')[-1500:]}")
        _wait(found[0])
        client = openai.OpenAI(base_url=f"{found[0]}/v1", api_key="none", max_retries=0, timeout=600)

        def embed(texts: Sequence[str]) -> np.ndarray:
            answer = client.embeddings.create(model="m", input=list(texts))
            return np.array([item.embedding for item in answer.data], dtype=np.float32)

        with client:
            yield embed
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    until = time.monotonic() + _START_S
    while httpx.get(f"{url}/health").status_code != 200:
        if time.monotonic() > until:
            raise RuntimeError("our engine does not become ready")
        time.sleep(0.2)


@contextmanager
def peer(model: Path, dtype: str) -> Iterator[Embed]:
    """sentence-transformers in a process of its own, which gets texts and gives vectors as lines of JSON."""
    python = str(_PYTHON) if _PYTHON.exists() else sys.executable
    argv = [python, embedding_peer.__file__, str(model), dtype]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    assert process.stdin is not None and process.stdout is not None
    into, out = process.stdin, process.stdout

    def embed(texts: Sequence[str]) -> np.ndarray:
        into.write(json.dumps(list(texts)) + "\n")
        into.flush()
        return np.array(json.loads(out.readline()), dtype=np.float32)

    try:
        yield embed
    finally:
        into.close()
        process.wait()
        out.close()
