"""Requests: OpenAI's completion and chat requests, checked. Whatever is wrong becomes an ApiError."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from ..engine.request import SamplingParams
from .body import decode
from .defaults import SamplingDefaults
from .errors import ApiError, short
from .fields import CHAT, COMPLETIONS, refusal
from .messages import turns

_MAX_SEQUENCES = 1024  # prompts x n
_MAX_CHOICES = 128
_MAX_LOGPROBS = 20
_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 1024
_MAX_STOP_IDS = 1024
_MAX_COUNT = 2**31 - 1
_MAX_VARIABLES = 64  # of a chat template
_MAX_VARIABLES_BYTES = 65536

# Numbers that other servers take as 10.0 too.
_INTEGERS = ("best_of", "logprobs", "max_completion_tokens", "max_tokens", "n", "seed", "top_k", "top_logprobs")
# What the template gets from elsewhere, besides the names of special tokens.
_RESERVED_VARIABLES = {"add_generation_prompt", "chat_template", "continue_final_message", "documents", "messages",
                       "raise_exception", "strftime_now", "tokenize", "tools"}  # fmt: skip

Count = Annotated[int, Meta(ge=1, le=_MAX_COUNT)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(max_length=_MAX_STOP_CHARACTERS)]


class StreamOptions(msgspec.Struct, frozen=True):
    """Which chunks of a stream say the token counts: OpenAI's one after the last, or, as with vLLM, all."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that completions and chat have in common. As in OpenAI's API, null is the same as absent."""

    endpoint: ClassVar[str]

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=_MAX_CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None  # 0 and -1: all
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=_MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[int], Meta(max_length=_MAX_STOP_IDS)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    no_stop_trim: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    stream_token_ids: bool | None = None
    continue_token_ids: list[int] | None = None

    @property
    def choices(self) -> int:
        """How many sequences to generate for each prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """The stop strings, maybe none."""
        return [self.stop] if isinstance(self.stop, str) and self.stop else list(self.stop or [])

    @property
    def keeps_stop(self) -> bool:
        """Whether the stop string that ends an answer is part of it."""
        return bool(self.include_stop_str_in_output or self.no_stop_trim)

    @property
    def shows_special_tokens(self) -> bool:
        """Whether special tokens are part of the text."""
        return self.skip_special_tokens is False

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether all chunks of a stream have the token counts up to then. As in vLLM, with include_usage only."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def top_count(self) -> int | None:
        """How many alternatives to report for each token; None: no logprobs at all."""
        raise NotImplementedError

    def sampling(
        self, choice: int, *, max_tokens: int, end_ids: frozenset[int], defaults: SamplingDefaults
    ) -> SamplingParams:
        """The parameters of one of the `n` choices. Each has a seed of its own, the first one `seed` itself."""
        ends = frozenset() if self.ignore_eos else end_ids
        top_k = _or(self.top_k, defaults.top_k)
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(self.temperature, defaults.temperature),
            top_p=_or(self.top_p, defaults.top_p),
            top_k=top_k if 0 < top_k <= _MAX_COUNT else 0,
            min_p=_or(self.min_p, defaults.min_p),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_or(self.repetition_penalty, defaults.repetition_penalty),
            seed=None if self.seed is None else self.seed + choice,
            logprobs=self.top_count,
            stop_token_ids=ends | frozenset(self.stop_token_ids or ()),
        )


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

    endpoint: ClassVar[str] = COMPLETIONS

    prompt: str | list[str | int | list[int]]
    logprobs: Annotated[int, Meta(ge=0, le=_MAX_LOGPROBS)] | None = None

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


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions."""

    endpoint: ClassVar[str] = CHAT

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=_MAX_LOGPROBS)] | None = None
    add_generation_prompt: bool | None = None  # by default what `continue_final_message` leaves
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

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


_Request = TypeVar("_Request", bound=GenerationRequest)


def parse(kind: type[_Request], body: bytes) -> _Request:
    """The request in `body`. Fields that nobody defines are ignored, as vLLM and SGLang do. Raises ApiError."""
    raw = decode(body)
    refused = refusal(raw, kind.endpoint)
    if refused is not None:
        name, why = refused
        raise ApiError(400, f"{name} = {short(raw[name])}: {why}", param=name)
    _make_whole(raw)
    try:
        request = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw) from error
    _check_combination(raw, request)
    return request


def _make_whole(raw: dict[str, Any]) -> None:
    """Let 10.0 be the integer 10, in place."""
    for name in _INTEGERS:
        value = raw.get(name)
        if isinstance(value, float) and value.is_integer():
            raw[name] = int(value)


def _check_combination(raw: Mapping[str, Any], request: GenerationRequest) -> None:
    """What the fields' types cannot say."""
    if not all(request.stops):
        raise ApiError(400, f"stop = {short(request.stop)}: expected strings that are not empty", param="stop")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options is only allowed with stream = true", param="stream_options")
    if raw.get("best_of") not in (None, request.choices):
        message = f"best_of = {short(raw['best_of'])}: expected n = {request.choices}: choices are not ranked"
        raise ApiError(400, message, param="best_of")
    if request.continue_token_ids and request.choices > 1:
        message = f"continue_token_ids is only allowed with one choice; n = {request.choices}"
        raise ApiError(400, message, param="continue_token_ids")
    if isinstance(request, CompletionRequest):
        _check_completion(request)
    if isinstance(request, ChatRequest):
        _check_chat(request)


def _check_completion(request: CompletionRequest) -> None:
    prompts = len(request.prompts)
    if prompts * request.choices > _MAX_SEQUENCES:
        asked = f"{prompts} prompts x n = {request.choices}"
        raise ApiError(400, f"prompt: {asked} sequences: expected at most {_MAX_SEQUENCES} in all", param="prompt")
    if request.continue_token_ids and prompts > 1:
        message = f"continue_token_ids is only allowed with one prompt; prompt has {prompts}"
        raise ApiError(400, message, param="continue_token_ids")


def _check_chat(request: ChatRequest) -> None:
    if request.top_logprobs and not request.logprobs:
        message = f"top_logprobs = {request.top_logprobs} is only allowed with logprobs = true"
        raise ApiError(400, message, param="top_logprobs")
    if request.continue_final_message and request.add_generation_prompt:
        message = "continue_final_message = true and add_generation_prompt = true exclude each other"
        raise ApiError(400, message, param="add_generation_prompt")
    _check_variables(request.variables)


def _check_variables(variables: Mapping[str, Any]) -> None:
    for name in variables:
        if name in _RESERVED_VARIABLES or name.endswith("_token"):
            param = f"chat_template_kwargs.{name[:80]}"
            raise ApiError(400, f"{param}: reserved; expected variables of the template's own", param=param)
    size = len(msgspec.json.encode(variables))
    if len(variables) > _MAX_VARIABLES or size > _MAX_VARIABLES_BYTES:
        asked = f"chat_template_kwargs has {len(variables)} variables in {size} bytes"
        expected = f"expected at most {_MAX_VARIABLES} in {_MAX_VARIABLES_BYTES}"
        raise ApiError(400, f"{asked}: {expected}", param="chat_template_kwargs")


def _explain(message: str, raw: Any) -> ApiError:
    """msgspec's message as an ApiError that names the field, its value and what is valid."""
    missing = re.match(r"Object missing required field `(.*)`", message)
    if missing:
        return ApiError(400, f"{missing[1]}: missing; it has no default", param=missing[1])
    text, _, path = message.partition(" - at `$.")
    path = path.rstrip("`")
    for part in re.findall(r"\w+", path):
        raw = raw[int(part)] if isinstance(raw, list) else raw[part]
    expected = re.sub(r", got `.*`$", "", text)
    return ApiError(400, f"{path} = {short(raw)}: {expected[0].lower()}{expected[1:]}", param=path)


_Number = TypeVar("_Number", int, float)


def _or(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value


def require_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise ApiError unless `ids`, a prompt, are tokens of the model, at least one."""
    _require_known("prompt", ids, vocab_size)
    if not ids:
        raise ApiError(400, "prompt: no tokens; expected at least one", param="prompt")


def require_continuable(ids: Sequence[int], vocab_size: int, max_tokens: int) -> None:
    """Raise ApiError unless `ids`, the tokens that an answer begins with, leave something to generate."""
    _require_known("continue_token_ids", ids, vocab_size)
    if len(ids) >= max_tokens:
        message = f"continue_token_ids has {len(ids)} tokens: expected fewer than max_tokens = {max_tokens}"
        raise ApiError(400, message, param="continue_token_ids")


def require_stop_ids(ids: Iterable[int], vocab_size: int) -> None:
    """Raise ApiError unless `ids` are tokens of the model."""
    _require_known("stop_token_ids", ids, vocab_size)


def _require_known(param: str, ids: Iterable[int], vocab_size: int) -> None:
    wrong = next((id for id in ids if not 0 <= id < vocab_size), None)
    if wrong is not None:
        raise ApiError(400, f"{param}: token id {short(wrong)}: expected 0 to {vocab_size - 1}", param=param)
