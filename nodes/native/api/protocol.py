"""Requests: OpenAI's completion and chat requests, checked. Whatever is wrong becomes an ApiError."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from ..engine.request import SamplingParams

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MAX_CHOICES = 128
_MAX_LOGPROBS = 20

Count = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class ApiError(Exception):
    """An answer with an HTTP status other than 200."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        super().__init__(message)


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's `stream_options`: whether the stream ends with the token counts."""

    include_usage: bool | None = None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that completions and chat have in common. As in OpenAI's API, null is the same as absent."""

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
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None

    @property
    def choices(self) -> int:
        """How many sequences to generate for each prompt."""
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        """The stop strings, maybe none."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def top_count(self) -> int | None:
        """How many alternatives to report for each token; None: no logprobs at all."""
        raise NotImplementedError

    def sampling(self, choice: int, *, max_tokens: int, end_ids: frozenset[int]) -> SamplingParams:
        """The parameters of one of the `n` choices. Each has a seed of its own, the first one `seed` itself."""
        ends = frozenset() if self.ignore_eos else end_ids
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(self.temperature, 1.0),
            top_p=_or(self.top_p, 1.0),
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            seed=None if self.seed is None else self.seed + choice,
            logprobs=self.top_count,
            stop_token_ids=ends | frozenset(self.stop_token_ids or ()),
        )


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/completions."""

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
            raise ApiError(400, f"prompt = {_short(prompt)}: expected {expected}", param="prompt")
        return [item for item in prompt if not isinstance(item, int)]


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=_MAX_LOGPROBS)] | None = None
    add_generation_prompt: bool | None = None  # by default what `continue_final_message` leaves
    continue_final_message: bool | None = None

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
        return [_turn(f"messages[{index}]", message) for index, message in enumerate(self.messages)]


_Request = TypeVar("_Request", bound=GenerationRequest)


def parse(kind: type[_Request], body: bytes) -> _Request:
    """The request in `body`. Fields that nobody defines are ignored, as OpenAI does. Raises ApiError."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ApiError(400, f"the body is {_short(raw)}: expected a JSON object")
    _refuse_unsupported(raw)
    try:
        request = msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw) from error
    _check_combination(raw, request)
    return request


# Fields of OpenAI's (first) and other engines' (second line on) that change the answer and that this engine does not
# implement, with the values that ask for nothing. Saying so beats a wrong answer.
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {})
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("audio", "echo", "function_call", "functions", "logit_bias", "reasoning_effort", "suffix", "tools",
                     "verbosity", "web_search_options"), _NOTHING),
    "modalities": (*_NOTHING, ["text"]),
    "response_format": (*_NOTHING, {"type": "text"}),
    "tool_choice": (*_NOTHING, "none", "auto"),
    **dict.fromkeys(("allowed_token_ids", "bad_words", "chat_template", "chat_template_kwargs", "documents", "ebnf",
                     "guided_choice", "guided_decoding", "guided_grammar", "guided_json", "guided_regex", "json_schema",
                     "min_tokens", "prompt_logprobs", "regex", "structured_outputs", "truncate_prompt_tokens",
                     "use_beam_search"), _NOTHING),
}  # fmt: skip


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    without_tools = raw.get("tool_choice") == "none"
    for name, harmless in _UNSUPPORTED.items():
        if raw.get(name) not in harmless and not (name == "tools" and without_tools):
            raise ApiError(400, f"{name} = {_short(raw[name])}: not supported by this engine; leave it out", param=name)


def _check_combination(raw: Mapping[str, Any], request: GenerationRequest) -> None:
    """What the fields' types cannot say."""
    if not all(request.stops):
        raise ApiError(400, f"stop = {_short(request.stop)}: expected strings that are not empty", param="stop")
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options is only allowed with stream = true", param="stream_options")
    if raw.get("best_of") not in (None, request.choices):
        message = f"best_of = {_short(raw['best_of'])}: expected n = {request.choices}: choices are not ranked"
        raise ApiError(400, message, param="best_of")
    if isinstance(request, ChatRequest):
        if request.top_logprobs and not request.logprobs:
            message = f"top_logprobs = {request.top_logprobs} is only allowed with logprobs = true"
            raise ApiError(400, message, param="top_logprobs")
        if request.continue_final_message and request.add_generation_prompt:
            message = "continue_final_message = true and add_generation_prompt = true exclude each other"
            raise ApiError(400, message, param="add_generation_prompt")


def _turn(param: str, message: Mapping[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        expected = f"expected one of: {', '.join(_ROLES)}"
        raise ApiError(400, f"{param}.role = {_short(role)}: {expected}", param=f"{param}.role")
    if isinstance(content, list):
        content = "".join(_text(f"{param}.content[{index}]", part) for index, part in enumerate(content))
    elif (content is None and role != "assistant") or not isinstance(content, str | None):
        expected = "expected a string or a list of text parts"
        raise ApiError(400, f"{param}.content = {_short(content)}: {expected}", param=f"{param}.content")
    return {**message, "content": content}


def _text(param: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    expected = 'expected {"type": "text", "text": string}: this engine reads text only'
    raise ApiError(400, f"{param} = {_short(part)}: {expected}", param=param)


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
    return ApiError(400, f"{path} = {_short(raw)}: {expected[0].lower()}{expected[1:]}", param=path)


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def require_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise ApiError unless `ids`, a prompt, are tokens of the model, at least one."""
    wrong = next((id for id in ids if not 0 <= id < vocab_size), None)
    if wrong is not None:
        raise ApiError(400, f"prompt: token id {wrong}: expected 0 to {vocab_size - 1}", param="prompt")
    if not ids:
        raise ApiError(400, "prompt: no tokens; expected at least one", param="prompt")
