"""Which quantized models are taken for what was asked."""

from typing import get_args

import pytest
import torch

from slurminfer.core.errors import CorruptModelError, ModelError, UnsupportedModelError
from slurminfer.nodes.native.options import Quantization
from slurminfer.quant.checkpoint.quantization import SCHEMES, parse_scheme
from slurminfer.quant.models import check_quantization

FP8 = {"quant_method": "fp8"}


def as_fp8(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    stored = weight.to(torch.float8_e4m3fn)
    return {"weight": stored, "weight_scale": torch.ones(1)}, stored


def test_a_spec_may_ask_for_every_format_that_is_read():
    assert set(get_args(Quantization)) == set(SCHEMES)


def test_an_unknown_method_is_named_with_the_known():
    with pytest.raises(
        UnsupportedModelError, match=r"quantized with exl3; supported are awq, gptq, fp8, .*unquantized"
    ):
        parse_scheme({"quantization_config": {"quant_method": "exl3"}}, "config.json")


def test_the_engine_takes_what_was_asked_for_and_names_what_was_not(store, logits):
    path, expected = store(as_fp8, FP8)
    torch.testing.assert_close(logits(path, quantization="fp8"), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match=r"quantization = 'awq', but the weights in .* are fp8"):
        logits(path, quantization="awq")


def test_an_unquantized_model_is_not_taken_for_a_quantized_one(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"quantization = 'gguf', but the weights in .* are not quantized"):
        check_quantization(tmp_path, "gguf")


@pytest.mark.parametrize("text", ["{", "[]", '{"quantization_config": "fp8"}'])
def test_a_damaged_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CorruptModelError, match=r"config\.json"):
        check_quantization(tmp_path, "fp8")
