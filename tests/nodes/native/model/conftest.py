"""Small random models written by transformers, and a driver that schedules chunks by hand."""

import hashlib
import os
import random
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from slurminfer.core.locks import wait_lock
from slurminfer.nodes.native.model.fused import library
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.runner import Runner
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.models import resolve

from ....support import random_models
from ....support.compiled_library import compiled_library

# Where the native engine computes: SLURMINFER_TEST_DEVICE=cuda checks the same against transformers on the CPU.
DEVICE = os.environ.get("SLURMINFER_TEST_DEVICE", "cpu")
SMALL = random_models.SMALL | {"vocab_size": 199, "num_hidden_layers": 3, "max_position_embeddings": 256}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# What to make a model of: transformers' model type, and what differs from SMALL.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied, biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama multi-head, head_dim": ("llama", {"num_key_value_heads": 4, "head_dim": 24}),
    "llama rope llama3": ("llama", {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64}}),
    "llama rope linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
    "llama rope dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral window": ("mistral", {"sliding_window": 9}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 window in part": ("qwen2", {"use_sliding_window": True, "sliding_window": 19, "max_window_layers": 1}),
    "qwen2 rope yarn": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    "qwen3": ("qwen3", {"head_dim": 32, "attention_bias": True}),
}

# What the compiled library computes, which wants heads of a multiple of 16.
FUSABLE = [name for name in VARIANTS if "head_dim" not in name or name == "qwen3"]
# CPUs without what newer ones have, as flags of the compiler.
OLDER = {
    "this CPU": (),
    "AVX512 without VNNI": (
        "-mno-avx512vnni", "-mno-avxvnni", "-mno-avx512bf16", "-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16",
    ),
    "AVX2": ("-march=x86-64-v3",),
}  # fmt: skip


def make_model(path: Path, variant: str, shape: Mapping[str, int] | None = None, **save: Any) -> PreTrainedModel:
    """Write a random model to `path`, of another `shape` than SMALL's if it is given; returns it in float32."""
    model_type, changes = VARIANTS[variant]
    config = SMALL | changes | dict(shape or {})
    return random_models.write_random_model(path, model_type, config, **save)


@pytest.fixture(scope="session", params=list(VARIANTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    """A small model's directory and the model as transformers computes it, for every variant."""
    path = tmp_path_factory.mktemp("model")
    return path, make_model(path, request.param)


@pytest.fixture(scope="module", params=list(OLDER))
def built(request: pytest.FixtureRequest) -> Path:
    """The compiled library, as for this CPU and for older ones; kept in pytest's cache, and compiled by one process."""
    flags, place = OLDER[request.param], compiled_library()
    assert place is not None, "the tests that want it are skipped then"
    if not flags:
        return place
    name = hashlib.sha256(" ".join((place.name, *flags)).encode()).hexdigest()[:16]
    path = request.config.cache.mkdir("kernels") / f"{name}.so"
    with path.with_suffix(".lock").open("w") as file:
        wait_lock(file)
        if not path.exists():
            library.compile_to(path, (*library.FLAGS, *flags))
    return path


@pytest.fixture
def make() -> Callable[..., PreTrainedModel]:
    return make_model


@pytest.fixture
def load() -> Callable[..., Runner]:
    def load(path: Path, **options: Any) -> Runner:
        defaults: dict[str, Any] = {"dtype": "float32", "device": DEVICE, "kv_cache_gib": 0.05, "block_size": 8}
        defaults |= {"threads": 1}  # small models gain nothing from more, and other processes may want them
        return load_model(EngineOptions(model=path, **(defaults | options)))

    return load


@dataclass
class Sequence_:
    """One sequence: its tokens, its blocks, how much is computed, and the logits behind every new token."""

    prompt: list[int]
    blocks: list[int]
    computed: int = 0
    generated: list[int] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.generated


class Driver:
    """Decodes greedily, with chunks as the test says, over blocks in random order."""

    def __init__(self, model: Runner, seed: int = 0) -> None:
        self.model = model
        self._free = list(range(model.num_blocks))
        random.Random(seed).shuffle(self._free)

    def add(self, prompt: Sequence[int], shared: Sequence_ | None = None) -> Sequence_:
        """A new sequence; with `shared` it takes over the full blocks of their common prefix."""
        size, blocks = self.model.block_size, []
        if shared is not None:
            same = next((i for i, (a, b) in enumerate(zip(prompt, shared.prompt)) if a != b), len(prompt) - 1)  # noqa: B905
            blocks = shared.blocks[: same // size]
        return Sequence_(list(prompt), list(blocks), computed=len(blocks) * size)

    def step(self, *work: tuple[Sequence_, int]) -> None:
        """Compute the next n tokens of each sequence; one whose tokens are all computed gets a new one."""
        chunks = [self._chunk(sequence, count) for sequence, count in work]
        logits = iter(self.model.forward(chunks))
        for (sequence, count), chunk in zip(work, chunks, strict=True):
            sequence.computed += count
            if chunk.num_logits:
                row = next(logits).cpu().clone()
                sequence.logits.append(row)
                sequence.generated.append(int(row.argmax()))

    def finish(self, sequence: Sequence_, generated: int) -> list[int]:
        """Go on alone until so many tokens are generated."""
        while len(sequence.generated) < generated:
            self.step((sequence, len(sequence.tokens) - sequence.computed))
        return sequence.generated

    def _chunk(self, sequence: Sequence_, count: int) -> Chunk:
        end = sequence.computed + count
        assert end <= len(sequence.tokens)
        while len(sequence.blocks) * self.model.block_size < end:
            sequence.blocks.append(self._free.pop())
        tokens = sequence.tokens[sequence.computed : end]
        return Chunk(tokens, sequence.computed, sequence.blocks, num_logits=int(end == len(sequence.tokens)))


_generated: weakref.WeakKeyDictionary[PreTrainedModel, dict[tuple[int, ...], tuple[list[int], torch.Tensor]]]
_generated = weakref.WeakKeyDictionary()


@pytest.fixture
def drive() -> type[Driver]:
    return Driver


@pytest.fixture
def expected() -> Callable[[PreTrainedModel, Sequence[int], int], tuple[list[int], torch.Tensor]]:
    """What transformers generates greedily: the tokens, and the logits [tokens, vocab_size] that chose them."""

    @torch.inference_mode()
    def generate(model: PreTrainedModel, prompt: Sequence[int], count: int) -> tuple[list[int], torch.Tensor]:
        out = model.generate(  # type: ignore[operator]  # transformers takes it from a mixin that mypy cannot see
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        return out.sequences[0, len(prompt) :].tolist(), torch.cat(out.logits).float()

    def expected(model: PreTrainedModel, prompt: Sequence[int], count: int) -> tuple[list[int], torch.Tensor]:
        known = _generated.setdefault(model, {})  # several tests ask one model the same
        if (key := (*prompt, count)) not in known:
            known[key] = generate(model, prompt, count)
        return known[key]

    return expected


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """One thread in transformers too; load_model sets the process's threads, other tests get theirs back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return resolve("demo")
