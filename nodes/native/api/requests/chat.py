"""The body of POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from ..errors import ApiError
from .fields import CHAT
from .generation import MAX_LOGPROBS, Count, GenerationRequest
from .messages import turns
from .reasoning import Effort
from .tools import Toolset, toolset

_MAX_VARIABLES = 64  # of a chat template
_MAX_VARIABLES_BYTES = 65536
# What the template gets from elsewhere, besides the names of special tokens.
_RESERVED_VARIABLES = {"add_generation_prompt", "chat_template", "continue_final_message", "documents", "messages",
                       "raise_exception", "strftime_now", "tokenize", "tools"}  # fmt: skip


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions."""

    endpoint: ClassVar[str] = CHAT

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    add_generation_prompt: bool | None = None  # by default what `continue_final_message` leaves
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    separate_reasoning: bool | None = None
    include_reasoning: bool | None = None
    stream_reasoning: bool | None = None

    @property
    def top_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, under its new name or its old one."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The messages with their contents as strings."""
        return turns(self.messages)

    @property
    def variables(self) -> dict[str, Any]:
        """The client's variables of the chat template."""
        return self.chat_template_kwargs or {}

    @property
    def toolset(self) -> Toolset:
        """The tools, and whether one must be called. Raises ApiError."""
        return toolset(self.tools, self.tool_choice, self.parallel_tool_calls)

    def check(self) -> None:
        super().check()
        if self.top_logprobs and not self.logprobs:
            message = f"top_logprobs = {self.top_logprobs} is only allowed with logprobs = true"
            raise ApiError(400, message, param="top_logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            message = "continue_final_message = true and add_generation_prompt = true exclude each other"
            raise ApiError(400, message, param="add_generation_prompt")
        _check_variables(self.variables)
        _ = self.toolset  # raises ApiError


def _check_variables(variables: Mapping[str, Any]) -> None:
    for name in variables:
        if name in _RESERVED_VARIABLES or name.endswith("_token"):
            param = f"chat_template_kwargs.{name[:80]}"
            raise ApiError(400, f"{param}: reserved; expected variables of the template's own", param=param)
    try:
        size = len(msgspec.json.encode(variables))
    except OverflowError as error:
        param = "chat_template_kwargs"
        raise ApiError(400, f"{param} has an integer beyond 64 bits", param=param) from error
    if len(variables) > _MAX_VARIABLES or size > _MAX_VARIABLES_BYTES:
        asked = f"chat_template_kwargs has {len(variables)} variables in {size} bytes"
        expected = f"expected at most {_MAX_VARIABLES} in {_MAX_VARIABLES_BYTES}"
        raise ApiError(400, f"{asked}: {expected}", param="chat_template_kwargs")
