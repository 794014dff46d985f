"""`[model]` and `[speculative]` of a spec."""

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from ..toml import Section
from .values import Tokens

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DEMO, DEMO_NAME = "demo", "SmolLM2-135M-Instruct"  # a model for trying out, and what clients call it


class ModelSpec(Section, frozen=True, kw_only=True):
    """`[model]`: the model to serve. A pool may have one of its own in `[pool.model]`."""

    # A model directory, a .gguf file, a Hugging Face id such as "org/name", or "demo" (SmolLM2-135M-Instruct). What is
    # not on the cluster's filesystem yet is fetched or converted before any job is submitted.
    path: str
    # What clients call the model. By default the Hugging Face id, or else the name of the model's directory.
    name: str = ""
    # What the model is computed in. auto: the engine chooses; native takes bfloat16 on GPUs and on CPUs with
    # instructions for it, else float32.
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    # What the KV cache is stored in; smaller types hold more tokens in the same memory. auto: as `dtype`. The other
    # values depend on the engine: int8 and int4 with native; fp8_e5m2, fp8_e4m3 and further ones with sglang and vllm,
    # some of them on certain GPUs only. A value that the engine does not know is refused with those that it does.
    kv_cache_dtype: str = "auto"
    # Tokens of the longest sequence, prompt and answer together. By default what the model was trained for.
    context_length: Tokens | None = None
    # native: which format the weights must be in (awq, gptq, fp8, compressed-tensors or gguf), so that a model of
    # another format is refused; gguf also makes it compute with a .gguf file's own quantized blocks instead of
    # converting them to 16 bits. sglang, vllm: the value of their option --quantization. By default the engine computes
    # with the weights as the model directory has them.
    quantization: str | None = None

    @property
    def served_name(self) -> str:
        """The name by which clients ask for the model; of a .gguf file without one, only once it is converted."""
        if self.name:
            return self.name
        if self.path == DEMO:
            return DEMO_NAME
        return self.path if self.is_hub_id else Path(self.path).name.removesuffix(".gguf")

    @property
    def is_hub_id(self) -> bool:
        """Whether `path` is the id of a model of the hub, such as org/name, and nothing on this filesystem."""
        path = Path(self.path)
        return bool(HUB_ID.fullmatch(self.path)) and path.suffix.lower() != ".gguf" and not path.exists()


class SpeculativeSpec(Section, frozen=True, kw_only=True):
    """`[speculative]`: guess several tokens ahead and check them in one step. Answers stay what they are.

    Without this section nothing is guessed.
    """

    # How tokens are guessed. ngram: looked up in the text so far. draft: by a smaller model with the same tokenizer.
    # eagle, eagle3 (not with native): by a small head that was trained for the model (arXiv 2401.15077, 2503.01840).
    method: Literal["ngram", "draft", "eagle", "eagle3"] = "ngram"
    # The smaller model or the head, written as `path` of [model]. Needed by all methods but ngram, which has none.
    draft_model: str | None = None
    # Tokens guessed for each sequence in one step. native guesses fewer where that is faster, and at most 15.
    draft_tokens: Annotated[int, Meta(ge=1, le=1_000)] = 8

    @property
    def is_head(self) -> bool:
        """Whether what guesses is part of a model, without a tokenizer of its own."""
        return self.method in ("eagle", "eagle3")
