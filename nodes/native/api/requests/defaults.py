"""How to sample where a request does not say: as the model's generation_config.json does, or by OpenAI's defaults."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .....core.errors import CorruptModelError
from ...tokenizer import read_model_json

_FILE = "generation_config.json"
_MOST = 2**31 - 1
_BOUNDS = {
    "temperature": (0.0, float(_MOST)),
    "top_p": (0.0, 1.0),
    "top_k": (-1, _MOST),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, float(_MOST)),
    "max_new_tokens": (1, _MOST),
}

_WHOLE = ("top_k", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request gets that says nothing. These values are OpenAI's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = None  # of a chat; None: what the context leaves

    def __str__(self) -> str:
        return ", ".join(f"{field.name} = {getattr(self, field.name)}" for field in fields(self))


def defaults_of_model(directory: Path) -> SamplingDefaults:
    """The values of generation_config.json, as vLLM and SGLang take them: `do_sample` is not looked at.

    Raises CorruptModelError for a value that cannot be.
    """
    config = read_model_json(directory, _FILE)
    found = {name: config[name] for name in _BOUNDS if config.get(name) is not None}
    return SamplingDefaults(**{name: _checked(directory, name, value) for name, value in found.items()})


def _checked(directory: Path, name: str, value: Any) -> Any:
    least, most = _BOUNDS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or (name in _WHOLE and value != int(value)):
        raise CorruptModelError(
            f"{directory / _FILE}: {name} = {value!r}: expected a number from {least} to {most}; "
            "--generation-config none ignores it"
        )
    return int(value) if name in _WHOLE else float(value)
