"""SGLang itself on a GPU of this machine, without Slurm: guessing tokens must not change what is said.

Opt-in: SLURMINFER_TEST_SGLANG names a Python that has SGLang for CUDA.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from slurminfer.core.machine.readings import device_files
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory

from ..support.waiting import eventually
from .conftest import User
from .deployments import complete, serve
from .rounding import agrees

_TOKENS = 48
SGLANG = os.environ.get("SLURMINFER_TEST_SGLANG")
_POOL = """
engine = "sglang"
gpus_per_node = 1
cpus_per_task = 8
max_running_requests = 8
python = "{python}"
extra_args = [
    "--attention-backend", "triton", "--sampling-backend", "pytorch", "--mem-fraction-static", "0.3",
    "--disable-prefill-cuda-graph", "--decode-log-interval", "1",
]
"""
_NGRAM = """
[speculative]
method = "ngram"
draft_tokens = 8
"""
_EAGLE = """
[speculative]
method = "eagle"
draft_model = "{head}"
draft_tokens = 3
"""
_ACCEPTED = re.compile(r"accept len: ([\d.]+)")

pytestmark = [
    pytest.mark.process,
    pytest.mark.gpu,
    pytest.mark.network,
    pytest.mark.timeout(900),
    pytest.mark.skipif(SGLANG is None, reason="SLURMINFER_TEST_SGLANG names no Python that has SGLang"),
    pytest.mark.skipif(not device_files(), reason="needs a GPU"),
]


@pytest.fixture
def head(demo_model: Path, tmp_path: Path) -> Path:
    """An EAGLE head of the right shape that nobody has trained: the model's last layer, on its hidden states."""
    directory = tmp_path / "head"
    directory.mkdir()
    config = json.loads((demo_model / "config.json").read_text())
    last, hidden = f"model.layers.{config['num_hidden_layers'] - 1}.", config["hidden_size"]
    # SGLang gives it the model's embeddings and head, and knows no one matrix for both there.
    config |= {"architectures": ["LlamaForCausalLMEagle"], "num_hidden_layers": 1, "tie_word_embeddings": False}
    (directory / "config.json").write_text(json.dumps(config))
    weights = {
        name.replace(last, "layers.0."): values
        for name, values in load_file(demo_model / "model.safetensors").items()
        if name.startswith(last) and "input_layernorm" not in name
    }
    weights["fc.weight"] = torch.cat([torch.zeros(hidden, hidden), torch.eye(hidden)], dim=1)  # [embedding, state]
    weights["fc.bias"] = torch.zeros(hidden)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.fixture
def start(user: User, tmp_path: Path) -> Callable[[str, str], None]:
    """Takes a name, and lines of a [speculative] section."""

    def start(name: str, guesses: str) -> None:
        # Its kernels know no float32.
        serve(user, tmp_path, name, _POOL.format(python=SGLANG) + guesses, "--local", dtype="float16", start_s=400)

    return start


def test_guesses_change_nothing_that_is_said(start, user: User, head: Path) -> None:
    start("none", "")
    expected = complete(user, "none", tokens=_TOKENS, logprobs=2)
    user.ok("stop", "none")
    for name, guesses in (("ngram", _NGRAM), ("eagle", _EAGLE.format(head=head))):
        start(name, guesses)
        said = complete(user, name, tokens=_TOKENS)
        assert all(agrees(one.text, other) for one, other in zip(said, expected, strict=True)), (said, expected)
        assert tokens_of_steps(user, name)
        user.ok("stop", name)
    assert max(tokens_of_steps(user, "ngram")) > 2  # of the prompt that repeats itself


def test_of_a_killed_rank_the_worker_says_that(start, user: User) -> None:
    """SGLang then kills all that is left of itself, with SIGKILL."""
    start("killed", "")
    run = RunDirectory(user.home / "runs" / "killed")
    [worker] = run.read_workers()
    [rank] = [process for process in psutil.Process(worker.pid).children(recursive=True) if is_rank(process)]
    rank.kill()

    def look() -> WorkerRecord | None:
        record = run.read_worker(worker.id)
        return record if record is not None and record.state != WorkerState.READY else None

    record = eventually(look)
    assert record is not None and "engine ended itself" in record.reason and "crashed" in record.reason, record


def is_rank(process: psutil.Process) -> bool:
    return "sglang::scheduler" in " ".join(process.cmdline())


def tokens_of_steps(user: User, name: str) -> list[float]:
    """Mean ones of a sequence, as SGLang logs them of each step that checks guesses."""
    logs = (path.read_text() for path in (user.home / "runs" / name / "logs").rglob("*") if path.is_file())
    return [float(found) for text in logs for found in _ACCEPTED.findall(text)]
