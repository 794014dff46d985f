"""Ranks in processes of their own, over gloo: the same logits as one process."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import make_memory
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import RANK_SECRET_VARIABLE, EngineOptions

from ....support.addresses import free_address
from ....support.quantized_models import STORE, relative_error, to_act_order, to_awq
from ....support.waiting import wait_until_idle
from ..model.conftest import make_model
from . import program
from .processes import run_ranks

pytestmark = [pytest.mark.process, pytest.mark.slow]

needs_compiler = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
PROGRAM = program.__file__
Steps = list[list[tuple[list[int], int, list[int], int]]]
# Chunks as (tokens, start, blocks, number of logits), in blocks of 8: prompts in whole and in pieces, tokens one by
# one, and several at once that are to be checked.
WORDS = random.Random(0).choices(range(199), k=200)
STEPS: Steps = [
    [(WORDS[:33], 0, [5, 3, 8, 1, 0, 9], 1)],
    [(WORDS[33:34], 33, [5, 3, 8, 1, 0, 9], 1), (WORDS[50:100], 0, [2, 4, 6, 7, 10, 11, 12, 13], 0)],
    [(WORDS[100:104], 50, [2, 4, 6, 7, 10, 11, 12, 13], 4), (WORDS[34:35], 34, [5, 3, 8, 1, 0, 9], 1)],
]
OPTIONS: dict[str, Any] = {"device": "cpu", "kv_cache_gib": 0.05, "block_size": 8, "threads": 1}


def alone(model: Path, steps: Steps = STEPS, **options: Any) -> list[torch.Tensor]:
    runner = load_model(EngineOptions(model=model, **(OPTIONS | options)))
    return [runner.forward([Chunk(*chunk) for chunk in step]).clone() for step in steps]


def argvs(
    model: Path, tensor: int, pipeline: int, out: Path, sequence: int = 1, steps: Steps = STEPS, **options: Any
) -> list[list[str]]:
    """Arguments of program.py, for each rank."""
    layout = {"tensor_parallel": tensor, "sequence_parallel": sequence, "pipeline_parallel": pipeline}
    meeting = {"rendezvous": free_address(), **layout}
    places = [{"local_rank": rank, **meeting} for rank in range(tensor * sequence * pipeline)]
    words = [[json.dumps(x) for x in (OPTIONS | options, steps, place)] for place in places]
    return [[str(model), *each, str(out / "logits.pt")] for each in words]


def together(
    model: Path, tensor: int, pipeline: int, out: Path, sequence: int = 1, steps: Steps = STEPS, **options: Any
) -> dict[str, Any]:
    """What rank 0 of some ranks computes, each in a process of its own."""
    run_ranks(program.main, argvs(model, tensor, pipeline, out, sequence, steps, **options), out)
    found: dict[str, Any] = torch.load(out / "logits.pt")
    return found


def compare(found: list[torch.Tensor], expected: list[torch.Tensor], most: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other.double()) < most if len(one) else True


@pytest.mark.parametrize(
    ("variant", "tensor", "pipeline"),
    [
        ("llama", 3, 1),  # 4 heads over 2 key-value heads: 1, 1 and 2
        ("llama tied, biases", 2, 2),
        ("qwen2 window in part", 2, 1),
        ("qwen3", 1, 3),
    ],
)
def test_logits_are_those_of_one_process(tmp_path, variant, tensor, pipeline):
    make_model(tmp_path, variant)
    found = together(tmp_path, tensor, pipeline, tmp_path, dtype="float32")["logits"]
    compare(found, alone(tmp_path, dtype="float32"), 1e-5)


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "tensor", "pipeline"),
    [("awq", 2, 1), ("awq", 2, 2), ("dense", 2, 1), ("act-order", 2, 1), ("act-order", 2, 2)],
)
def test_the_compiled_library_computes_parts_too(tmp_path, kind, tensor, pipeline):
    make_model(tmp_path, "llama")
    STORE[kind](tmp_path)
    options: dict[str, Any] = {"dtype": "bfloat16", "kernels": "compiled"}
    found = together(tmp_path, tensor, pipeline, tmp_path, **options)
    assert found["compiled"]
    # Sums in another order, and one input of a later layer may round to the next code.
    compare(found["logits"], alone(tmp_path, **options), 0.05)


@pytest.mark.parametrize(("kernels", "tensor"), [("torch", 3), pytest.param("compiled", 2, marks=needs_compiler)])
def test_a_step_that_waits_for_a_killed_rank_ends_with_its_name(tmp_path, kernels, tensor):
    make_model(tmp_path, "llama")
    given = argvs(tmp_path, tensor, 1, tmp_path, steps=STEPS[:1] * 300, dtype="bfloat16", kernels=kernels)
    env = {**os.environ, RANK_SECRET_VARIABLE: "a worker's"}
    options: dict[str, Any] = {"env": env, "pass_fds": (make_memory(env),), "stderr": subprocess.PIPE}
    ranks = [subprocess.Popen([sys.executable, PROGRAM, *argv], text=True, **options) for argv in given]
    os.close(*options["pass_fds"])
    assert ranks[0].stderr is not None
    assert any(line.startswith("rank 0: layers") for line in ranks[0].stderr)  # the first step is about to begin
    ranks[1].send_signal(signal.SIGSTOP)
    wait_until_idle(ranks[0].pid)  # in a sum with the one that is stopped
    ranks[1].kill()
    said = ranks[0].communicate(timeout=30)[1]
    assert "EngineError: rank 1 on " in said
    for rank in ranks[1:]:
        rank.communicate(timeout=10)
    assert [rank.returncode for rank in ranks] == [1, -signal.SIGKILL, 1][:tensor]


def test_a_quantized_cache_and_exact_weights(tmp_path):
    make_model(tmp_path, "llama")
    to_awq(tmp_path)
    options: dict[str, Any] = {"dtype": "float32", "kernels": "exact", "kv_cache_dtype": "int8"}
    found = together(tmp_path, 2, 1, tmp_path, **options)["logits"]
    compare(found, alone(tmp_path, **options), 0.01)  # a code of the cache may differ


@pytest.mark.parametrize(
    ("variant", "tensor", "pipeline", "kernels"),
    [
        ("llama", 2, 1, "exact"),
        ("llama tied, biases", 2, 2, "exact"),  # the MLP has biases, which go with its neurons
        ("llama", 3, 1, "torch"),
    ],
)
def test_act_order_is_computed_by_parts_exactly(tmp_path, variant, tensor, pipeline, kernels):
    make_model(tmp_path, variant)
    to_act_order(tmp_path)
    found = together(tmp_path, tensor, pipeline, tmp_path, dtype="float32", kernels=kernels)["logits"]
    limit = 1e-5 if kernels == "exact" else 0.05  # PyTorch's kernel rounds what it multiplies to bfloat16
    compare(found, alone(tmp_path, dtype="float32", kernels=kernels), limit)
