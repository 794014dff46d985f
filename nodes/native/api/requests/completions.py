"""The body of POST /v1/completions."""

from typing import Annotated, ClassVar

from msgspec import Meta

from ..errors import ApiError
from .fields import COMPLETIONS
from .generation import MAX_LOGPROBS, GenerationRequest
from .prompts import Prompts, prompts_of

_MAX_SEQUENCES = 1024  # prompts x n


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

    endpoint: ClassVar[str] = COMPLETIONS

    prompt: Prompts
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def top_count(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt: text, or token ids."""
        return prompts_of(self.prompt, "prompt")

    def check(self) -> None:
        super().check()
        prompts = len(self.prompts)
        if prompts * self.choices > _MAX_SEQUENCES:
            asked = f"{prompts} prompts x n = {self.choices}"
            raise ApiError(400, f"prompt: {asked} sequences: expected at most {_MAX_SEQUENCES} in all", param="prompt")
        if self.continue_token_ids and prompts > 1:
            message = f"continue_token_ids is only allowed with one prompt; prompt has {prompts}"
            raise ApiError(400, message, param="continue_token_ids")
