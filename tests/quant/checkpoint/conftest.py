"""A small random model whose linear layers a test stores in a quantized format, and what both engines make of it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions

Tensors = dict[str, torch.Tensor]
# Of a layer's name and weight [out, in]: the tensors that store it, by the end of their names, and what they stand for.
Quantize = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]

HIDDEN, INTERMEDIATE, VOCABULARY = 64, 96, 200
PROMPT = [(7 * i * i + 3 * i) % VOCABULARY for i in range(20)]


def make_model() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "llama", vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().float()


@pytest.fixture
def model() -> PreTrainedModel:
    """The model in float32, as transformers computes it."""
    return make_model()


@torch.inference_mode()
def reference_logits(model: PreTrainedModel) -> torch.Tensor:
    """What transformers computes for PROMPT: float32 [tokens, VOCABULARY]."""
    logits: torch.Tensor = model(torch.tensor([PROMPT])).logits[0]
    return logits


def engine_logits(path: Path, **options: Any) -> torch.Tensor:
    """What the native engine computes for PROMPT in float32."""
    runner = load_model(
        EngineOptions(model=path, dtype="float32", device="cpu", threads=1, kv_cache_gib=0.05, **options)
    )
    blocks = range(-(-len(PROMPT) // runner.block_size))
    return runner.forward([Chunk(PROMPT, 0, blocks, len(PROMPT))])


@pytest.fixture
def logits() -> Callable[..., torch.Tensor]:
    return engine_logits


@pytest.fixture
def transformers_logits() -> Callable[[PreTrainedModel], torch.Tensor]:
    return reference_logits


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., tuple[Path, torch.Tensor]]:
    """Stores the model with its linear layers quantized; its directory, and the logits of the weights it stands for.

    `layers` are the quantized ones by the ends of their names; with `shards` neighbouring tensors lie in two files.
    """

    def store(
        quantize: Quantize, config: Mapping[str, Any], *, layers: tuple[str, ...] = ("_proj",), shards: bool = False
    ) -> tuple[Path, torch.Tensor]:
        model = make_model()
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name.endswith(layers):
                parts, dense = quantize(name, tensors.pop(f"{name}.weight"))
                tensors |= {f"{name}.{end}": part.contiguous() for end, part in parts.items()}
                module.weight.data = dense.float()
        (_save_in_two if shards else _save)(tmp_path, tensors)
        describe(tmp_path, config)
        return tmp_path, reference_logits(model)

    return store


def describe(path: Path, config: Mapping[str, Any]) -> None:
    """Give config.json another `quantization_config`."""
    described = json.loads((path / "config.json").read_text()) | {"quantization_config": dict(config)}
    (path / "config.json").write_text(json.dumps(described))


@pytest.fixture
def redescribe() -> Callable[[Path, Mapping[str, Any]], None]:
    return describe


@pytest.fixture
def edit() -> Callable[[Path, Callable[[Tensors], object]], None]:
    """Changes the tensors of a stored model."""

    def edit(path: Path, change: Callable[[Tensors], object]) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        _save(path, tensors)

    return edit


def _save(path: Path, tensors: Tensors) -> None:
    save_file(tensors, path / "model.safetensors")


def _save_in_two(path: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    for index in (0, 1):
        save_file({name: tensors[name] for name in names[index::2]}, path / f"model-{index}.safetensors")
    weight_map = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (path / "model.safetensors").unlink()
