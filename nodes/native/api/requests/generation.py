"""The fields that all requests for text have in common."""

from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from ...engine.request import SamplingParams
from ...engine.token_rules import TokenRules
from ...grammar.matcher import Grammar
from ..errors import ApiError, short
from .continued import TokenIds, Told, told_choices
from .defaults import SamplingDefaults

MAX_LOGPROBS = 20
_MAX_CHOICES = 128
_FEW_CHOICES, _FEW_RULES, _FEW_TOLD = 16, 1000, 1000  # that take hardly any time
_MAX_FINISHED = 1024  # as many as there may be choices of all prompts
_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 1024
_MAX_STOP_IDS = 1024
MAX_RULED_TOKENS = 65536  # of logit_bias, and of allowed_token_ids
_MAX_BAD_WORDS = 128
_MAX_SALT_CHARACTERS = 1024
_MAX_BAD_WORD_CHARACTERS = 128
MAX_COUNT = 2**31 - 1

Count = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
Length = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(max_length=_MAX_STOP_CHARACTERS)]
BadWord = Annotated[str, Meta(min_length=1, max_length=_MAX_BAD_WORD_CHARACTERS)]


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
    best_of: Annotated[int, Meta(ge=1, le=_MAX_CHOICES)] | None = None
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
    min_tokens: Length | None = None
    min_new_tokens: Length | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: Annotated[list[int], Meta(max_length=MAX_RULED_TOKENS)] | None = None
    bad_words: Annotated[list[BadWord], Meta(max_length=_MAX_BAD_WORDS)] | None = None
    cache_salt: Annotated[str, Meta(max_length=_MAX_SALT_CHARACTERS)] | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    no_stop_trim: bool | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    stream_token_ids: bool | None = None
    continue_token_ids: TokenIds | None = None
    finished_choices: Annotated[list[int], Meta(max_length=_MAX_FINISHED)] | None = None
    # Structured output: see structured.py.
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None
    json_schema: Any = None
    regex: str | None = None
    ebnf: str | None = None

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def sequences(self) -> int:
        """How many sequences to generate for each prompt: its answers, or those of which they are the best."""
        return self.best_of or self.choices

    @property
    def prompt_count(self) -> int:
        """How many prompts there are."""
        return 1

    @property
    def told(self) -> list[Told]:
        """What another server has told of each sequence. Raises ApiError."""
        return told_choices(self.continue_token_ids, self.finished_choices, self.prompt_count * self.sequences)

    @property
    def ranks(self) -> bool:
        """Whether more is generated than is told."""
        return self.sequences > self.choices

    @property
    def is_laborious(self) -> bool:
        """Whether its sequences, with their rules, take long to make."""
        named = len(self.logit_bias or ()) + len(self.allowed_token_ids or ()) + len(self.bad_words or ())
        told = sum(1 if isinstance(each, int) else len(each) for each in self.continue_token_ids or ())
        return self.sequences > _FEW_CHOICES or named > _FEW_RULES or told > _FEW_TOLD

    @property
    def fewest_tokens(self) -> int:
        """How many tokens an answer has at least, under either name."""
        return (self.min_new_tokens if self.min_tokens is None else self.min_tokens) or 0

    @property
    def prompt_top_count(self) -> int | None:
        """How many alternatives to report for each token of the prompt; None: no logprobs of it at all."""
        return self.prompt_logprobs

    @property
    def stops(self) -> list[str]:
        """The stop strings, maybe none."""
        return [self.stop] if isinstance(self.stop, str) and self.stop else list(self.stop or [])

    @property
    def streams_ids(self) -> bool:
        """Whether the events of a stream have the ids of their tokens."""
        return bool(self.stream_token_ids or self.return_token_ids)

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

    def check(self) -> None:
        """Raise ApiError for what the fields' types cannot say."""
        if not all(self.stops):
            raise ApiError(400, f"stop = {short(self.stop)}: expected strings that are not empty", param="stop")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options is only allowed with stream = true", param="stream_options")
        if self.sequences < self.choices:
            message = f"best_of = {self.best_of}: expected at least n = {self.choices}"
            raise ApiError(400, message, param="best_of")
        if self.ranks and self.stream:
            message = (
                f"best_of = {self.best_of}: expected n = {self.choices} with stream = true, as nothing can be ranked"
            )
            raise ApiError(400, message, param="best_of")
        if self.stream and self.prompt_logprobs is not None:
            message = f"prompt_logprobs = {self.prompt_logprobs}: expected stream = false"
            raise ApiError(400, message, param="prompt_logprobs")
        if self.continue_token_ids and self.prompt_logprobs is not None:
            message = "prompt_logprobs is only allowed without continue_token_ids"
            raise ApiError(400, message, param="prompt_logprobs")
        if self.continue_token_ids and self.ranks:
            message = f"continue_token_ids is only allowed with best_of = n = {self.choices}"
            raise ApiError(400, message, param="continue_token_ids")
        if self.finished_choices and not self.stream:
            raise ApiError(400, "finished_choices is only allowed with stream = true", param="finished_choices")
        _ = self.told  # raises ApiError

    @property
    def top_count(self) -> int | None:
        """How many alternatives to report for each token; None: no logprobs at all."""
        raise NotImplementedError

    def sampling(
        self,
        choice: int,
        *,
        max_tokens: int,
        end_ids: frozenset[int],
        defaults: SamplingDefaults,
        rules: TokenRules | None = None,
        grammar: Grammar | None = None,
    ) -> SamplingParams:
        """The parameters of one sequence of a prompt. Each has a seed of its own, the first one `seed` itself."""
        ends = frozenset() if self.ignore_eos else end_ids
        top_k = _or(self.top_k, defaults.top_k)
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(self.temperature, defaults.temperature),
            top_p=_or(self.top_p, defaults.top_p),
            top_k=top_k if 0 < top_k <= MAX_COUNT else 0,
            min_p=_or(self.min_p, defaults.min_p),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            repetition_penalty=_or(self.repetition_penalty, defaults.repetition_penalty),
            seed=None if self.seed is None else self.seed + choice,
            logprobs=0 if self.ranks and self.top_count is None else self.top_count,
            prompt_logprobs=self._prompt_logprobs(choice),
            stop_token_ids=ends | frozenset(self.stop_token_ids or ()),
            min_tokens=self.fewest_tokens,
            rules=rules,
            cache_salt=self.cache_salt or "",
            grammar=grammar,
        )

    def _prompt_logprobs(self, choice: int) -> int | None:
        """Computed once for a prompt, but for a stream: none of its choices waits for another one."""
        is_told_already = choice > 0 and not self.stream
        return None if is_told_already else self.prompt_top_count


_Number = TypeVar("_Number", int, float)


def _or(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value
