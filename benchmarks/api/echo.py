"""Log-probabilities of prompts by a server, against those of transformers in float32, and what they cost."""

import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from slurminfer.nodes.native.tokenizer import Tokenizer

_DOCS = Path(__file__).parents[2] / "docs"
_LONGEST = 200  # tokens of a prompt
_AT_ONCE = 8
_TOP = 5


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """The largest difference over all tokens of some hundred prompts, and prompt tokens/s with and without."""
    prompts = _prompts(Tokenizer(model), 12 if quick else 300)
    with _serving(model) as url:
        found = _ask_all(url, prompts, echo=True, logprobs=_TOP, max_tokens=1)
        speeds = {name: _tokens_per_s(url, model, fields, 1 if quick else 3) for name, fields in _SIDES.items()}
    errors = _errors(model, prompts, found)
    return {
        "prompts": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "max_error": max(errors),
        "mean_error": statistics.fmean(errors),
        "prompt_tokens_per_s": speeds,
        "relative_speed": speeds["with"] / speeds["without"],
    }


_SIDES: dict[str, dict[str, Any]] = {
    "without": {"max_tokens": 1},
    "with": {"max_tokens": 1, "echo": True, "logprobs": 1},
}


def _prompts(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Pieces of this project's documentation, of 2 to 200 tokens, so that no other data is needed."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(_DOCS.rglob("*.md")))
    ids, chosen = tokenizer.encode(text, add_special_tokens=False), random.Random(0)
    lengths = [chosen.randint(2, _LONGEST) for _ in range(count)]
    starts = [chosen.randrange(len(ids) - length) for length in lengths]
    return [ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]


@contextmanager
def _serving(model: Path) -> Iterator[str]:
    arguments = ["--model", str(model), "--served-model-name", "m", "--dtype", "float32", "--port", "0"]
    command = [sys.executable, "-m", "slurminfer.nodes.native", *arguments, "--kv-cache-gib", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            address = re.search(r"http://\S+:\d+", process.stdout.readline())
            assert address, "the server has not started"
            assert "ready" in process.stdout.readline()
            yield address[0]
        finally:
            process.terminate()


def _ask(url: str, prompt: Sequence[int], fields: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "m", "prompt": prompt, "temperature": 0, **fields}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=600)
    answer.raise_for_status()
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def _ask_all(url: str, prompts: Sequence[Sequence[int]], **fields: Any) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda prompt: _ask(url, prompt, fields), prompts))


def _tokens_per_s(url: str, model: Path, fields: dict[str, Any], rounds: int) -> float:
    """Of prompts that the prefix cache does not have, the median of some rounds."""
    vocab = 2000
    found = []
    for _ in range(rounds):
        prompts = [[random.randrange(10, vocab) for _ in range(_LONGEST)] for _ in range(_AT_ONCE)]
        began = time.perf_counter()
        _ask_all(url, prompts, **fields)
        found.append(_AT_ONCE * _LONGEST / (time.perf_counter() - began))
    return statistics.median(found)


@torch.inference_mode()
def _errors(model: Path, prompts: Sequence[list[int]], found: Sequence[dict[str, Any]]) -> list[float]:
    """The differences of all tokens of all prompts, and of the most likely tokens at their places."""
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    errors = []
    for prompt, choice in zip(prompts, found, strict=True):
        expected = reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
        own = expected[:-1].gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()
        best = expected[:-1].amax(-1).tolist()
        told, tops = choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"]
        assert told[0] is None and len(told) in (len(prompt), len(prompt) + 1)
        errors += [abs(a - b) for a, b in zip(told[1 : len(prompt)], own, strict=True)]
        errors += [abs(max(top.values()) - b) for top, b in zip(tops[1 : len(prompt)], best, strict=True)]
    return errors
