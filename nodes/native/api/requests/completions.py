"""The body of POST /v1/completions."""

from typing import Annotated, ClassVar

from msgspec import Meta

from ..errors import ApiError, short
from .fields import COMPLETIONS
from .generation import MAX_LOGPROBS, GenerationRequest

_MAX_SEQUENCES = 1024  # prompts x n


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

    endpoint: ClassVar[str] = COMPLETIONS

    prompt: str | list[str | int | list[int]]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def top_count(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt: text, or token ids."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        kinds = {type(item) for item in prompt}
        if kinds == {int}:
            return [[item for item in prompt if isinstance(item, int)]]
        if len(kinds) != 1:
            expected = "a string, a list of strings, a list of token ids or a list of such lists, and not empty"
            raise ApiError(400, f"prompt = {short(prompt)}: expected {expected}", param="prompt")
        return [item for item in prompt if not isinstance(item, int)]

    def check(self) -> None:
        super().check()
        prompts = len(self.prompts)
        if prompts * self.choices > _MAX_SEQUENCES:
            asked = f"{prompts} prompts x n = {self.choices}"
            raise ApiError(400, f"prompt: {asked} sequences: expected at most {_MAX_SEQUENCES} in all", param="prompt")
        if self.continue_token_ids and prompts > 1:
            message = f"continue_token_ids is only allowed with one prompt; prompt has {prompts}"
            raise ApiError(400, message, param="continue_token_ids")
