"""Random models of a known shape: what they say means nothing, what they take does.

    python -m benchmarks.gpu.model OUT [--small | --awq]

Llama-3.1-8B's shape with SmolLM2's tokenizer: bfloat16 (16 GB), or AWQ in groups of 128 (5.7 GB) with random codes.
--small is SmolLM2-135M's shape (0.3 GB).
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192},
}  # fmt: skip
SMOLLM2_135M: dict[str, Any] = {
    **{key: value for key, value in LLAMA_8B.items() if key != "rope_scaling"},
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
}  # fmt: skip
_GROUP = 128


def make(out: Path, tokenizer: Path, awq: bool, device: torch.device, shape: dict[str, Any] = LLAMA_8B) -> None:
    """Write the model to `out`, layer by layer in files of their own."""
    out.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, out / name)
    config = dict(shape, torch_dtype="float16" if awq else "bfloat16")
    if awq:
        config["quantization_config"] = {
            "quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": ["lm_head"],
        }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (out / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}), encoding="utf-8")
    random = torch.Generator(device).manual_seed(0)
    dtype = torch.float16 if awq else torch.bfloat16
    hidden, inner, vocab = (shape[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
    kv = shape["num_key_value_heads"] * shape["head_dim"]

    def dense(outputs: int, inputs: int) -> torch.Tensor:
        return torch.randn(outputs, inputs, generator=random, device=device, dtype=dtype).mul_(0.02).cpu()

    def codes(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31, shape, generator=random, device=device, dtype=torch.int32).cpu()

    def linear(name: str, outputs: int, inputs: int) -> dict[str, torch.Tensor]:
        if not awq:
            return {f"{name}.weight": dense(outputs, inputs)}
        scales = torch.full((inputs // _GROUP, outputs), 0.003, dtype=dtype)
        return {
            f"{name}.qweight": codes(inputs, outputs // 8),
            f"{name}.qzeros": codes(inputs // _GROUP, outputs // 8),
            f"{name}.scales": scales,
        }

    files: dict[str, str] = {}

    def write(file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, out / file, metadata={"format": "pt"})
        files.update(dict.fromkeys(tensors, file))

    ends = {"model.embed_tokens.weight": dense(vocab, hidden), "lm_head.weight": dense(vocab, hidden)}
    write("model-ends.safetensors", ends | {"model.norm.weight": torch.ones(hidden, dtype=dtype)})
    for index in range(shape["num_hidden_layers"]):
        prefix = f"model.layers.{index}."
        tensors = {f"{prefix}{name}.weight": torch.ones(hidden, dtype=dtype)
                   for name in ("input_layernorm", "post_attention_layernorm")}  # fmt: skip
        for name, outputs, inputs in (
            ("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden), ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):  # fmt: skip
            tensors |= linear(prefix + name, outputs, inputs)
        write(f"model-{index:02d}.safetensors", tensors)
    index_file = {"metadata": {}, "weight_map": files}
    (out / "model.safetensors.index.json").write_text(json.dumps(index_file), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json")
    parser.add_argument("--awq", action="store_true")
    parser.add_argument("--small", action="store_true", help="SmolLM2-135M's shape")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    make(given.out, given.tokenizer, given.awq, device, SMOLLM2_135M if given.small else LLAMA_8B)


if __name__ == "__main__":
    main()
