"""The body of POST /v1/embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from .....quant.checkpoint.embedding import EmbeddingConfig
from ..errors import ApiError, short
from .body import decode
from .fields import EMBEDDINGS_OBEYED, HARMLESS, NOTHING, OBEYED, REFUSED
from .prompts import Prompts, prompts_of
from .protocol import convert

MAX_INPUTS = 2048  # OpenAI's


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/embeddings. As in OpenAI's API, null is the same as absent."""

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    add_special_tokens: bool | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """One entry for each embedding that is asked for: text, or token ids."""
        return prompts_of(self.input, "input")

    def name_of(self, index: int) -> str:
        """How errors call one of the inputs."""
        is_one = isinstance(self.input, str) or (bool(self.input) and isinstance(self.input[0], int))
        return "input" if is_one else f"input[{index}]"

    def size(self, config: EmbeddingConfig) -> int:
        """How many numbers of each embedding are asked for. Raises ApiError where they are none by themselves."""
        if self.dimensions is None:
            return config.size
        if config.allows(self.dimensions):
            return self.dimensions
        if not config.is_matryoshka:
            expected = f"{config.size}, or no such field: config.json names neither is_matryoshka nor its dimensions"
        elif config.dimensions:
            expected = f"one of {', '.join(map(str, config.dimensions))}"
        else:
            expected = f"1 to {config.size}"
        raise ApiError(400, f"dimensions = {self.dimensions}: expected {expected}", param="dimensions")

    def check(self) -> None:
        """Raise ApiError for what the fields' types cannot say."""
        inputs = self.inputs
        if len(inputs) > MAX_INPUTS:
            raise ApiError(400, f"input has {len(inputs)} entries: expected at most {MAX_INPUTS}", param="input")
        for index, each in enumerate(inputs):
            if not each:
                what = "text that is not empty" if isinstance(each, str) else "at least one token id"
                raise ApiError(400, f"{self.name_of(index)} = {short(each)}: expected {what}", param="input")


def parse_embedding(body: bytes) -> EmbeddingRequest:
    """The request in `body`. Fields that nobody defines are ignored, those of other endpoints refused.

    Raises ApiError.
    """
    raw = decode(body)
    refused = _refused(raw)
    if refused is not None:
        message = f"{refused} = {short(raw[refused])}: not for /v1/embeddings; leave it out"
        raise ApiError(400, message, param=refused)
    request = convert(raw, EmbeddingRequest)
    request.check()
    return request


def require_tokens(ids: Sequence[int], vocab_size: int, name: str) -> None:
    """Raise ApiError unless `ids`, the input called `name`, are tokens of the model, at least one."""
    if not ids:
        raise ApiError(400, f"{name}: no tokens; expected at least one", param="input")
    if 0 <= min(ids) <= max(ids) < vocab_size:  # without a step of Python for each
        return
    wrong = next((id for id in ids if not 0 <= id < vocab_size), None)
    if wrong is not None:
        raise ApiError(400, f"{name}: token id {short(wrong)}: expected 0 to {vocab_size - 1}", param="input")


def _refused(raw: Mapping[str, Any]) -> str | None:
    """The first field that would change another endpoint's answer."""
    for name, value in raw.items():
        is_elsewhere = name in OBEYED or name in REFUSED
        if is_elsewhere and name not in EMBEDDINGS_OBEYED and name not in HARMLESS and value not in NOTHING:
            return name
    return None
