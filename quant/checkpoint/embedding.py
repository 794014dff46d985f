"""How a model makes an embedding of a text, read from sentence-transformers' files; torch is not needed for it.

    modules.json                       a Transformer, then a Pooling, then maybe Normalize; others are refused
    PATH OF THE POOLING/config.json    pooling_mode, or its older spelling pooling_mode_lasttoken, ..._cls_token, ...
    sentence_bert_config.json          max_seq_length
    config_sentence_transformers.json  prompts, default_prompt_name: put before each text
    config.json                        is_matryoshka, matryoshka_dimensions: whether embeddings may be cut short

Where there is no modules.json, an embedding is the last token's hidden state, normalised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from ...core.errors import CorruptModelError, UnsupportedModelError
from .files import read_json_object
from .keys import Keys


class Pooling(StrEnum):
    """Which hidden states of a sequence, behind the final norm, make its embedding."""

    LAST = "last"  # the last token's
    CLS = "cls"  # the first token's
    MEAN = "mean"  # the mean of all


_MODES = {"lasttoken": Pooling.LAST, "cls": Pooling.CLS, "mean": Pooling.MEAN}
_OLDER_MODES = {  # keys that say true or false, and what each stands for
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingConfig:
    """From hidden states to an embedding."""

    size: int  # numbers of an embedding
    pooling: Pooling = Pooling.LAST
    normalize: bool = True  # to length 1 (L2)
    prompt: str = ""  # before each text
    max_tokens: int | None = None  # of a text, where the model is made for fewer than its context has
    is_matryoshka: bool = False  # whether the first numbers of an embedding are one by themselves
    dimensions: tuple[int, ...] = ()  # how many numbers; none: any number, if is_matryoshka

    def allows(self, dimensions: int) -> bool:
        """Whether the first so many numbers of an embedding are one by themselves."""
        if dimensions == self.size or not self.is_matryoshka:
            return dimensions == self.size
        return dimensions in self.dimensions if self.dimensions else 1 <= dimensions <= self.size


class _Module(msgspec.Struct):
    """An entry of modules.json."""

    type: str
    path: str = ""

    @property
    def name(self) -> str:
        """The class, whose package differs between versions."""
        return self.type.rpartition(".")[2]


def read_embedding(model: Path) -> EmbeddingConfig:
    """How a model directory makes embeddings. Raises CorruptModelError, UnsupportedModelError."""
    keys = Keys(_optional(model / "config.json"), str(model / "config.json"))
    size, prompt, (is_matryoshka, dimensions) = keys.positive("hidden_size"), _prompt(model), _matryoshka(keys)
    if not (model / "modules.json").exists():
        return EmbeddingConfig(size=size, prompt=prompt, is_matryoshka=is_matryoshka, dimensions=dimensions)
    pooling, *others = _modules(model)
    sentence = _optional(model / "sentence_bert_config.json")
    if sentence.get("do_lower_case"):
        raise UnsupportedModelError(f"{model / 'sentence_bert_config.json'}: do_lower_case = true: expected false")
    most = sentence.get("max_seq_length")
    return EmbeddingConfig(
        size=size,
        pooling=_pooling(model / pooling.path / "config.json", prompt),
        normalize=bool(others),
        prompt=prompt,
        max_tokens=None if most is None else Keys(sentence, str(model / "sentence_bert_config.json")).positive(
            "max_seq_length"
        ),
        is_matryoshka=is_matryoshka,
        dimensions=dimensions,
    )  # fmt: skip


def _modules(model: Path) -> list[_Module]:
    """The pooling, and the normalisation if there is one."""
    path = model / "modules.json"
    try:
        modules = msgspec.json.decode(path.read_bytes(), type=list[_Module])
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    names = [module.name for module in modules]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0].path:
        raise UnsupportedModelError(
            f"{path}: modules {', '.join(names)}: the native engine computes Transformer (of the directory itself), "
            "Pooling and Normalize, in this order; engine vllm or sglang may compute others"
        )
    if any(PurePosixPath(module.path).is_absolute() or ".." in module.path.split("/") for module in modules):
        raise CorruptModelError(f"{path}: a module's path is outside of {model}")
    return modules[1:]


def _pooling(path: Path, prompt: str) -> Pooling:
    config = read_json_object(path)
    modes = _pooling_modes(config)
    if len(modes) != 1 or modes[0] not in _MODES:
        expected = f"the native engine computes one of {', '.join(_MODES)}"
        raise UnsupportedModelError(f"{path}: pooling_mode {', '.join(map(str, modes))}: {expected}")
    if prompt and config.get("include_prompt", True) is False:
        raise UnsupportedModelError(f"{path}: include_prompt = false, with a default prompt: expected true")
    return _MODES[modes[0]]


def _pooling_modes(config: Mapping[str, Any]) -> Sequence[Any]:
    found = config.get("pooling_mode")
    if found is not None:
        return found if isinstance(found, list) else [found]
    return [mode for key, mode in _OLDER_MODES.items() if config.get(key)] or ["mean"]


def _prompt(model: Path) -> str:
    """The prompt that applies to every text; others are for who asks for them by name."""
    path = model / "config_sentence_transformers.json"
    config = _optional(path)
    name, prompts = config.get("default_prompt_name"), config.get("prompts")
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(name, str) or not isinstance(prompts.get(name), str):
        raise CorruptModelError(f"{path}: default_prompt_name = {name!r}: expected the name of one of its prompts")
    return str(prompts[name])


def _matryoshka(keys: Keys) -> tuple[bool, tuple[int, ...]]:
    found = keys.raw.get("matryoshka_dimensions")
    if found is None:
        return keys.flag("is_matryoshka"), ()
    if not isinstance(found, list) or not all(type(each) is int and each > 0 for each in found):
        raise keys.wrong("matryoshka_dimensions", found, "a list of positive integers")
    return True, tuple(found)


def _optional(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    return read_json_object(path) if path.exists() else {}
