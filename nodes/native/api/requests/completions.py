"""The body of POST /v1/completions."""

from typing import Annotated, ClassVar

from msgspec import Meta

from ..errors import ApiError
from .fields import COMPLETIONS
from .generation import MAX_LOGPROBS, GenerationRequest, Length
from .prompts import Prompts, prompts_of

_MAX_SEQUENCES = 1024  # prompts x n


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

    endpoint: ClassVar[str] = COMPLETIONS

    prompt: Prompts
    max_tokens: Length | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def top_count(self) -> int | None:
        return self.logprobs

    @property
    def prompt_top_count(self) -> int | None:
        asked = [self.prompt_logprobs, self.logprobs if self.echo else None]
        return max((count for count in asked if count is not None), default=None)

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt: text, or token ids."""
        return prompts_of(self.prompt, "prompt")

    @property
    def prompt_count(self) -> int:
        return len(self.prompts)

    def check(self) -> None:
        super().check()
        prompts = self.prompt_count
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            expected = "expected at least 1, or 0 with echo = true or prompt_logprobs"
            raise ApiError(400, f"max_tokens = 0: {expected}", param="max_tokens")
        if prompts * self.sequences > _MAX_SEQUENCES:
            name = "best_of" if self.ranks else "n"
            asked = f"{prompts} prompts x {name} = {self.sequences}"
            raise ApiError(400, f"prompt: {asked} sequences: expected at most {_MAX_SEQUENCES} in all", param="prompt")
