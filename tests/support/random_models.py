"""Small random models as transformers writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def write_random_model(path: Path, model_type: str, config: Mapping[str, Any], **save: Any) -> PreTrainedModel:
    """Write a model to `path`, the same in every run; returns it in float32. `save` is for `save_pretrained`."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config)).eval().float()
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", "norm.weight")):  # initialised to 0 and 1, which would hide a mistake
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    model.save_pretrained(path, **save)
    return model
