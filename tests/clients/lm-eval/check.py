"""lm-eval: log-likelihoods equal to those of transformers in float32, and generation."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from tried import HERE, expect, finish, recipe, tried

CHOICES = ["Paris", "Rome", "Madrid"]
shutil.copytree(HERE / "tasks", "tasks")


def samples(task: str, folder: str = "out") -> list[dict]:
    (path,) = Path(folder).rglob(f"samples_{task}_*.jsonl")
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda row: row["doc_id"])


def unwrapped(row: dict) -> list:
    """The response to each choice of a sample: its log-likelihood, and whether it is the greedy one."""
    return [response[0] if isinstance(response[0], list) else response for response in row["resps"]]


@tried("local-completions, log-likelihoods within 1e-3 of transformers in float32")
def _():
    recipe("loglikelihood.sh")
    rows = samples("capitals_choice")
    pairs = [[row["doc"]["question"], f" {choice}"] for row in rows for choice in CHOICES]
    argv = [os.environ["SLURMINFER_PYTHON"], str(HERE / "reference.py"), os.environ["MODEL_PATH"]]
    done = subprocess.run(argv, input=json.dumps(pairs), capture_output=True, encoding="utf-8", check=True)
    wanted = [tuple(pair) for pair in json.loads(done.stdout)]
    found = [(float(logprob), greedy in (True, "True")) for row in rows for logprob, greedy in unwrapped(row)]
    expect(len(found) == len(wanted) == 9, found)
    pairs = list(zip(found, wanted, strict=True))
    worst = max(abs(got[0] - want[0]) for got, want in pairs)
    print(f"largest difference of {len(pairs)} log-likelihoods: {worst:.2g}")
    expect(worst < 1e-3 and all(got[1] == want[1] for got, want in pairs), pairs)


@tried("tokenizer_backend=remote, the same log-likelihoods without a tokenizer")
def _():
    recipe("remote.sh")
    local, remote = ([row["resps"] for row in samples("capitals_choice", folder)] for folder in ("out", "remote"))
    expect(local == remote, (local, remote))


@tried("local-chat-completions (generate_until)")
def _():
    recipe("generate.sh")
    texts = [row["resps"][0][0] for row in samples("capitals_generate")]
    expect(len(texts) == 3 and "Paris" in texts[0], texts)


finish()
