import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from gguf.quants import quantize

from slurminfer.quant.models import resolve

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, LAYERS = 64, 4, 2, 16, 96, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TYPES = {"q": Q.Q8_0, "k": Q.Q4_0, "down": Q.Q8_0}  # every other matrix is F16


@pytest.fixture(scope="session")
def demo_model():
    """The demo model's directory, in the user's own cache: only the first run downloads it."""
    return resolve("demo")


@pytest.fixture
def home(tmp_path, monkeypatch, lend_library):
    """A slurminfer home of the test's own; returns its models directory."""
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    lend_library(tmp_path / "home")
    return tmp_path / "home" / "models"


@pytest.fixture
def start_python():
    """Starts Python code in a process of its own, with standard output as a pipe; killed at the end of the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str, *argv: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, argv)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def byte_level_vocabulary() -> dict[str, Any]:
    tokens = [*SPECIAL, *byte_alphabet(), "he", "ll", "hell", "hello", "Ġhello", "12"]
    return {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "merges": ["h e", "l l", "he ll", "hell o", "Ġ hello", "1 2"],
        "bos_token_id": 1,
        "eos_token_id": 0,
        "unknown_token_id": 0,
        "padding_token_id": 0,
    }


def sentencepiece_vocabulary() -> dict[str, Any]:
    pieces = {"▁": -9.0, "a": -8.0, "b": -7.0, "▁a": -1.0, "ab": -2.0, "▁▁": -4.0}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return {
        "model": "llama",
        "tokens": tokens,
        "scores": [0.0] * (len(tokens) - len(pieces)) + list(pieces.values()),
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


def random_weights(arch: str, vocab: int, *, tied: bool) -> dict[str, np.ndarray]:
    """Weights by Hugging Face name, as the model's authors would have them."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not tied:
        shapes["lm_head.weight"] = (vocab, HIDDEN)
    for i in range(LAYERS):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in _layer_shapes(arch).items()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _layer_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    rows = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
    shapes: dict[str, tuple[int, ...]] = {f"self_attn.{part}_proj.weight": (n, HIDDEN) for part, n in rows.items()}
    if arch == "qwen2":
        shapes |= {f"self_attn.{part}_proj.bias": (n,) for part, n in rows.items()}
    if arch == "qwen3":
        shapes |= {f"self_attn.{part}_norm.weight": (HEAD_DIM,) for part in "qk"}
    return shapes | {
        "self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
        "input_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
        "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
    }


_PARTS = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def gguf_name(name: str) -> str:
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    return name


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The row order that llama.cpp's converter gives q and k of a llama model."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def default_type(name: str, weight: np.ndarray) -> Q:
    part = name.rsplit(".", 2)[-2].removesuffix("_proj")
    return Q.F32 if weight.ndim == 1 else TYPES.get(part, Q.F16)


@pytest.fixture
def write_gguf(tmp_path):
    """Writes a small GGUF model; returns its path and its weights by Hugging Face name.

    `edit` may change the weights first, `metadata` adds keys or replaces them (None leaves one out), `types` gives the
    quantization type of a weight, `extra` adds tensors under GGUF names.
    """

    def write(
        arch: str = "llama",
        *,
        file_name: str = "tiny.gguf",
        tied: bool = True,
        vocabulary: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        types: Callable[[str, np.ndarray], Q] = default_type,
        edit: Callable[[dict[str, np.ndarray]], None] | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, dict[str, np.ndarray]]:
        vocabulary = vocabulary or byte_level_vocabulary()
        weights = random_weights(arch, len(vocabulary["tokens"]), tied=tied)
        if edit:
            edit(weights)
        writer = GGUFWriter(tmp_path / file_name, arch)
        for key, value in (_metadata(arch, vocabulary) | dict(metadata or {})).items():
            _add(writer, key, value)
        for name, weight in weights.items():
            _add_weight(writer, arch, name, weight, types(name, weight))
        for name, weight in (extra or {}).items():
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / file_name, weights

    return write


def _metadata(arch: str, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{arch}.block_count": LAYERS,
        f"{arch}.context_length": 128,
        f"{arch}.embedding_length": HIDDEN,
        f"{arch}.feed_forward_length": INTERMEDIATE,
        f"{arch}.attention.head_count": HEADS,
        f"{arch}.attention.head_count_kv": KV_HEADS,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.freq_base": 10000.0,
    } | {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()}


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)


def _add_weight(writer: GGUFWriter, arch: str, name: str, weight: np.ndarray, kind: Q) -> None:
    if arch == "llama" and "q_proj" in name:
        weight = permuted(weight, HEADS)
    if arch == "llama" and "k_proj" in name:
        weight = permuted(weight, KV_HEADS)
    writer.add_tensor(gguf_name(name), quantize(weight, kind), raw_dtype=kind)


@pytest.fixture
def vocabularies():
    """A byte-level ("gpt2") and a SentencePiece ("llama") vocabulary, as GGUF metadata."""
    return {"gpt2": byte_level_vocabulary(), "llama": sentencepiece_vocabulary()}
