"""SGLang itself on a GPU of this machine, without Slurm: guessing tokens must not change what is said.

Opt-in: SLURMINFER_TEST_SGLANG names a Python that has SGLang for CUDA.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slurminfer.core.gpus import device_files

from .conftest import User
from .over_nodes import answers

SGLANG = os.environ.get("SLURMINFER_TEST_SGLANG")
_POOL = """
engine = "sglang"
gpus_per_node = 1
cpus_per_task = 8
max_running_requests = 8
python = "{python}"
extra_args = [
    "--attention-backend", "triton", "--sampling-backend", "pytorch", "--mem-fraction-static", "0.3",
    "--decode-log-interval", "1",
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
    config |= {"architectures": ["LlamaForCausalLMEagle"], "num_hidden_layers": 1}
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


def test_guesses_change_nothing_that_is_said(user: User, tmp_path: Path, head: Path) -> None:
    def said(name: str, guesses: str) -> list[str]:
        pool = _POOL.format(python=SGLANG) + guesses
        # Its kernels know no float32. The last prompt repeats itself.
        return answers(user, tmp_path, name, pool, dtype="bfloat16", tokens=48, start_s=400, how=("--local",))

    alone = said("alone", "")
    user.ok("stop", "alone")
    assert said("ngram", _NGRAM) == alone
    assert max(tokens_of_steps(user, "ngram")) > 2
    user.ok("stop", "ngram")
    assert said("eagle", _EAGLE.format(head=head)) == alone
    assert tokens_of_steps(user, "eagle")


def tokens_of_steps(user: User, name: str) -> list[float]:
    """Mean ones of a sequence, as SGLang logs them of each step that checks guesses."""
    logs = (path.read_text() for path in (user.home / "runs" / name / "logs").rglob("*") if path.is_file())
    return [float(found) for text in logs for found in _ACCEPTED.findall(text)]
