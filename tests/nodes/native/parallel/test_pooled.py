"""Pooled hidden states come to rank 0 from every layout of ranks, and are those of one process."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import EngineOptions

from ....support.addresses import free_address
from ..model.conftest import make_model
from . import program
from .processes import run_ranks
from .test_parallel import OPTIONS, argvs

pytestmark = [pytest.mark.process, pytest.mark.slow]

needs_compiler = pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
WORDS = random.Random(0).choices(range(199), k=200)
FIRST, SECOND, THIRD = [5, 3, 8, 1, 0, 9], [2, 4, 6, 7, 10, 11, 12, 13], [14, 15, 16]
# (tokens, start, blocks, logits, prompt, pooling): sequences in whole and in pieces, alone and beside a prompt and
# decodes; each is in every other step, so that a pipeline can compute two at once.
STEPS: list[list[tuple[Any, ...]]] = [
    [(WORDS[:33], 0, FIRST, 0, True, "mean"), (WORDS[150:170], 0, THIRD, 1)],
    [(WORDS[50:90], 0, SECOND, 0, True, "cls")],
    [(WORDS[33:34], 33, FIRST, 0, True, "mean"), (WORDS[170:171], 20, THIRD, 1)],
    [(WORDS[90:104], 40, SECOND, 0, True, "last")],
    [(WORDS[171:172], 21, THIRD, 0, True, "last")],
]


def alone(model: Path, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    return program.run_steps(load_model(EngineOptions(model=model, **(OPTIONS | options))), STEPS)


def check(found: dict[str, Any], expected: list[tuple[torch.Tensor, torch.Tensor | None]], most: float) -> None:
    assert [rows.shape[0] for rows in found["logits"]] == [1, 0, 1, 0, 0]
    for rows, pooled, (wanted_rows, wanted) in zip(found["logits"], found["pooled"], expected, strict=True):
        assert wanted is not None and pooled.shape == wanted.shape
        assert (pooled - wanted).norm() < most * wanted.norm()
        if len(rows):
            assert (rows - wanted_rows).norm() < most * wanted_rows.norm()


@pytest.mark.parametrize(
    ("tensor", "sequence", "pipeline"),
    [(2, 1, 1), (1, 1, 2), (2, 1, 2), (1, 2, 1), (1, 2, 2), (1, 1, 3)],
)
def test_every_layout_of_ranks(tmp_path, tensor, sequence, pipeline):
    make_model(tmp_path, "qwen3")
    given = argvs(tmp_path, tensor, pipeline, tmp_path, sequence, STEPS, dtype="float32")
    run_ranks(program.main, given, tmp_path)
    check(torch.load(tmp_path / "logits.pt"), alone(tmp_path, dtype="float32"), 1e-5)


def test_stages_on_two_nodes(tmp_path):
    """Which share no memory: what is pooled comes over a socket."""
    make_model(tmp_path, "qwen3")
    meeting = {"pipeline_parallel": 2, "nodes": 2, "rendezvous": free_address()}
    options, model, out = json.dumps(OPTIONS | {"dtype": "float32"}), str(tmp_path), str(tmp_path / "logits.pt")
    places = [json.dumps(meeting | {"node_rank": rank}) for rank in range(2)]
    given = [[model, options, json.dumps(STEPS), place, out] for place in places]
    run_ranks(program.main, given, tmp_path, nodes=2)
    check(torch.load(tmp_path / "logits.pt"), alone(tmp_path, dtype="float32"), 1e-5)


@needs_compiler
@pytest.mark.parametrize(("tensor", "sequence", "pipeline"), [(2, 1, 1), (1, 2, 1), (1, 2, 2)])
def test_the_compiled_library(tmp_path, tensor, sequence, pipeline):
    make_model(tmp_path, "llama", {"intermediate_size": 128})
    options: dict[str, Any] = {"dtype": "bfloat16", "kernels": "compiled"}
    run_ranks(program.main, argvs(tmp_path, tensor, pipeline, tmp_path, sequence, STEPS, **options), tmp_path)
    found = torch.load(tmp_path / "logits.pt")
    assert found["compiled"]
    check(found, alone(tmp_path, **options), 0.05)


def test_a_decoder_without_lm_head(tmp_path):
    decoder: Any = make_model(tmp_path / "whole", "qwen3").base_model
    decoder.save_pretrained(tmp_path / "bare")
    steps = [[chunk for chunk in step if not chunk[3]] for step in STEPS]
    run_ranks(program.main, argvs(tmp_path / "bare", 2, 2, tmp_path, 1, steps, dtype="float32"), tmp_path)
    pooled, wanted = torch.load(tmp_path / "logits.pt")["pooled"][1], alone(tmp_path / "whole", dtype="float32")[1][1]
    assert wanted is not None
    assert (pooled - wanted).norm() < 1e-5 * wanted.norm()
