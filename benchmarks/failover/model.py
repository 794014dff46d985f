"""A small model that says known words, greedily the same in any precision and batch: each token has one successor.

    python -m benchmarks.failover.model OUT --tokenizer DIR

A Llama of two layers that add nothing: what follows a token depends on that token alone. The tokens go round in a cycle
of words, punctuation, characters of several tokens, and the end of the answer. So a difference between an answer that
went on at another worker and the undisturbed one is not of rounding.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

_HIDDEN, _LAYERS, _HEADS, _EOS = 512, 2, 8, 2
_WORDS = 300
_ODD = {40: ",", 90: " 🎉", 140: "\n\n", 190: " 中文字符", 240: ".", 270: "  "}  # before which words


def cycle(tokenizer: Tokenizer) -> list[int]:
    """The tokens in their order, each once; the end of an answer is one of them."""
    found: list[int] = []
    for word in sorted(tokenizer.get_vocab(), key=lambda word: (hash_of(word), word)):
        text = " " + word[1:]
        if word[:1] != "Ġ" or not (word[1:].isascii() and word[1:].isalpha() and len(word) > 3):
            continue
        if len(found) in _ODD:
            found += [one for one in tokenizer.encode(_ODD[len(found)]).ids if one not in found]
        ids = tokenizer.encode(text).ids
        if len(ids) == 1 and ids[0] not in found:
            found.append(ids[0])
        if len(found) >= _WORDS:
            break
    return [*found, _EOS]


def hash_of(word: str) -> int:
    """The same number for a word in every process."""
    return int.from_bytes(word.encode()) % 100_003


def make(out: Path, tokenizer_folder: Path) -> None:
    """Write the model."""
    out.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, out / name)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    ids, vocabulary = cycle(tokenizer), tokenizer.get_vocab_size()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": _HIDDEN,
        "intermediate_size": _HIDDEN, "num_hidden_layers": _LAYERS, "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS, "head_dim": _HIDDEN // _HEADS, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": _EOS, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (out / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": _EOS}), "utf-8")
    save_file(_tensors(ids, vocabulary), out / "model.safetensors", metadata={"format": "pt"})


def _tensors(ids: list[int], vocabulary: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    known = torch.randint(0, 2, (len(ids), _HIDDEN), generator=random).mul(2).sub(1).to(torch.bfloat16)
    place = {token: at for at, token in enumerate(ids)}
    of = torch.tensor([place.get(token, token * 7 % len(ids)) for token in range(vocabulary)])
    head = torch.zeros(vocabulary, _HIDDEN, dtype=torch.bfloat16)
    head[torch.tensor(ids)] = known.roll(1, 0)
    tensors = {"model.embed_tokens.weight": known[of].contiguous(), "lm_head.weight": head}
    tensors["model.norm.weight"] = torch.ones(_HIDDEN, dtype=torch.bfloat16)
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}."
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):  # fmt: skip
            tensors[f"{prefix}{name}.weight"] = torch.zeros(_HIDDEN, _HIDDEN, dtype=torch.bfloat16)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = torch.ones(_HIDDEN, dtype=torch.bfloat16)
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tokenizer.json")
    given = parser.parse_args()
    make(given.out, given.tokenizer)


if __name__ == "__main__":
    main()
