"""What AWQ can be told, and whether it can be done to a model."""

from dataclasses import dataclass
from typing import Literal

from ...core.errors import UnsupportedModelError, UsageError
from ..checkpoint.awq import PER_WORD
from ..checkpoint.config import ModelConfig
from ..checkpoint.tensors import LINEARS, linear_shape
from .rounding import GROUP_SIZES

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class AwqOptions:
    """Options of one quantization. Raises UsageError for a value that cannot be."""

    group_size: int | None = None  # inputs that share a scale; None: the largest that fits the model
    calibration: str = "c4"  # a text of quant/texts.py, or a file
    samples: int = 128
    sample_length: int = 512  # tokens
    device: Device = "auto"
    threads: int | None = None  # by default the CPUs that this process may use

    def __post_init__(self) -> None:
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            raise UsageError(f"group_size = {self.group_size}: expected one of {_listed(GROUP_SIZES)}")
        for name in ("samples", "sample_length", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} = {value}: expected at least 1")


def choose_group_size(config: ModelConfig, wanted: int | None) -> int:
    """`wanted`, or the largest of GROUP_SIZES that divides every linear layer.

    Raises UnsupportedModelError that names the layer and the sizes that would do.
    """
    if config.quantization is not None:
        raise UnsupportedModelError("the model's weights are quantized already: quantize the original")
    for name in LINEARS:
        outputs, inputs = linear_shape(config, name)
        if outputs % PER_WORD:
            raise UnsupportedModelError(f"{name} has {outputs} outputs: AWQ's format needs a multiple of {PER_WORD}")
    fitting = [size for size in GROUP_SIZES if _misfit(config, size) is None]
    if not fitting:
        name, inputs = _misfit(config, GROUP_SIZES[0]) or ("", 0)
        raise UnsupportedModelError(f"{name} has {inputs} inputs: none of the groups of {_listed(GROUP_SIZES)} fits")
    if wanted is None:
        return max(fitting)
    misfit = _misfit(config, wanted)
    if misfit is not None:
        name, inputs = misfit
        raise UnsupportedModelError(
            f"group_size = {wanted} does not divide the {inputs} inputs of {name}; for this model: {_listed(fitting)}"
        )
    return wanted


def _misfit(config: ModelConfig, group_size: int) -> tuple[str, int] | None:
    """The first linear layer, with its inputs, that groups of this size do not fit."""
    found = ((name, linear_shape(config, name)[1]) for name in LINEARS)
    return next(((name, inputs) for name, inputs in found if inputs % group_size), None)


def _listed(sizes: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
