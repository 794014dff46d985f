"""One sequence to generate: what was asked for, and how far it is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ....quant.checkpoint.embedding import Pooling

if TYPE_CHECKING:  # it takes seconds to import
    import torch

from ..grammar.matcher import Grammar, Matcher
from .prompt_logprobs import PromptLogprobs
from .token_rules import TokenRules


class FinishReason(StrEnum):
    """Why a generation ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"  # of an answer with calls: said by the API, never by the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose tokens and when to end. The defaults of the numbers leave the model's distribution as it is."""

    max_tokens: int  # 0: the prompt is computed, and nothing is generated
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logprobs: int | None = None  # how many alternatives to report beside the chosen token; None: no logprobs
    prompt_logprobs: int | None = None  # the same for the prompt's own tokens
    stop_token_ids: frozenset[int] = frozenset()  # the model's end tokens are among them, unless ignored
    min_tokens: int = 0  # so many are generated before any of stop_token_ids
    rules: TokenRules | None = None
    cache_salt: str = ""  # only requests with the same one share the prefix cache
    grammar: Grammar | None = None  # what the answer must look like

    @property
    def penalizes(self) -> bool:
        """Whether any penalty changes the logits."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural log-probabilities under the model's own distribution, before penalties and temperature."""

    chosen: float
    top: tuple[tuple[int, float], ...]  # (token, logprob), most likely first


@dataclass(frozen=True, slots=True)
class Sample:
    """The token that was chosen for a sequence in one step."""

    token: int
    logprobs: TokenLogprobs | None = None


class Request:
    """A sequence on its way. The scheduler and the block manager keep their notes of it here."""

    __slots__ = (
        "_matcher", "_random", "_to_skip", "_uniform", "accepted", "blocks", "cached", "committed", "computed",
        "digests", "failed", "flow", "given", "guessed", "id", "params", "pooled", "pooling", "prompt_length",
        "prompt_logprobs", "rank", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        params: SamplingParams,
        generated: Sequence[int] = (),
        pooling: Pooling | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        """A list as `prompt` is shared by all requests that it is given to: it must not be changed any more.

        Args:
            generated: tokens that were sampled elsewhere. The request goes on after them as after a preemption.
            matcher: behind these tokens, where there is a grammar; by default it is moved there for the first token.
            pooling: how to make the embedding that is wanted in place of any token; `params` then say nothing.
        """
        self.id = id
        self.flow = id  # the same for all that came together: see scheduler.py
        self.params = params
        self.pooling = pooling
        self.pooled: torch.Tensor | None = None  # the sum of what its chunks have given so far
        self.given = prompt  # the list that other requests may share
        self.prompt_length = len(prompt)
        self.tokens = prompt if isinstance(prompt, list) else list(prompt)  # then what was generated
        if generated:
            self.tokens = [*self.tokens, *generated]
        self._to_skip = len(generated)  # random numbers that have chosen these tokens
        self._random: random.Random | None = None  # 2.5 KB, which a request that waits or is greedy does without
        self._uniform = (-1, 0.0)
        self._matcher = matcher  # None: until the first token is drawn
        self.rank = (0.0, 0)
        self.computed = 0  # tokens whose keys and values lie in `blocks`
        self.cached: int | None = None  # prompt tokens that the prefix cache had; None until it was looked up
        self.blocks: list[int] = []
        self.committed = 0  # blocks, from the first on, that the prefix cache knows
        self.digests: list[bytes] = []  # of the full blocks
        self.guessed = self.accepted = 0  # tokens of speculative decoding
        self.failed = False  # by an exception of its own
        # Of the prompt as far as it has been computed; whole before the first token is sampled. None where the answer
        # has begun elsewhere.
        top = None if generated else params.prompt_logprobs
        self.prompt_logprobs = None if top is None else PromptLogprobs(top)

    @property
    def prompt(self) -> list[int]:
        """The tokens that it was given."""
        return self.tokens[: self.prompt_length]

    @property
    def remaining(self) -> int:
        """Tokens still to be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def next_tokens(self) -> int:
        """How many of them one step may compute. Prompt and generated tokens are not mixed: see `Chunk.prompt`."""
        return self.prompt_length - self.computed if self.in_prompt and self.generated else self.remaining

    @property
    def needs_every_state(self) -> bool:
        """Whether the hidden states of tokens before the last are wanted: no other request's keys stand for them."""
        return self.pooling not in (None, Pooling.LAST)

    @property
    def logits_from(self) -> int:
        """The first place whose logits are still wanted: up to there, the prefix cache may know the sequence."""
        if self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.prompt_length - 1:
            return len(self.prompt_logprobs)
        return len(self.tokens) - 1

    def prompt_rows(self, count: int) -> int:
        """How many of the next `count` tokens have logits that foretell the prompt's own, and are wanted."""
        last = self.prompt_length - 1
        if self.prompt_logprobs is None:
            return 0
        return max(min(self.computed + count, last) - max(self.computed, len(self.prompt_logprobs)), 0)

    def tokens_within(self, prompt_rows: int) -> int:
        """`next_tokens`, or so many that the logits of at most `prompt_rows` of the prompt are wanted."""
        count = self.next_tokens
        if self.prompt_rows(count) <= prompt_rows:
            return count
        return max(self.computed, self.logits_from) + prompt_rows - self.computed

    @property
    def in_prompt(self) -> bool:
        """Whether the next token to be computed is the prompt's."""
        return self.computed < self.prompt_length

    @property
    def generated(self) -> int:
        """How many tokens have been sampled so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def matcher(self) -> Matcher:
        """Where the answer stands in its grammar, which there must be. Raises MatcherError for tokens against it."""
        if self._matcher is None:
            assert self.params.grammar is not None
            matcher = self.params.grammar.matcher(self.params.stop_token_ids)
            for token in self.tokens[self.prompt_length :]:
                matcher.accept(token)
            self._matcher = matcher
        return self._matcher

    @property
    def is_late(self) -> bool:
        """Whether its next token cannot be drawn yet: another thread computes what its grammar allows."""
        return self._matcher is not None and self._matcher.pending is not None

    def uniform(self) -> float:
        """The random number in [0, 1) that chooses the next token: the same one until that token is there."""
        place = len(self.tokens)
        if self._uniform[0] != place:
            if self._random is None:
                self._random = random.Random(_positive(self.params.seed))
                for _ in range(self._to_skip):
                    self._random.random()
            self._uniform = place, self._random.random()
        return self._uniform[1]

    def extend(self, token: int) -> FinishReason | None:
        """Take a sampled token; why the sequence ends with it, or None if it goes on.

        Raises MatcherError for a token that the grammar does not allow.
        """
        matcher = None if self.params.grammar is None else self.matcher
        if not self.generated:
            self.tokens = self.tokens.copy()
        self.tokens.append(token)
        if token in self.params.stop_token_ids:
            return FinishReason.STOP
        if matcher is not None:
            matcher.accept(token)
            if matcher.is_complete:
                return FinishReason.STOP
        return FinishReason.LENGTH if self.generated >= self.params.max_tokens else None


def _positive(seed: int | None) -> int | None:
    """Python's generator takes -1 and 1 for the same seed: negative ones go beyond all positive ones of 64 bits."""
    return seed if seed is None or seed >= 0 else 2**64 - seed


@dataclass(frozen=True, slots=True)
class Output:
    """One new token of a request, the last one if `finish` says why; none where none was to be generated."""

    request: Request
    sample: Sample | None
    finish: FinishReason | None

    @property
    def token(self) -> int:
        """The new token; only where there is one."""
        assert self.sample is not None, f"request {self.request.id} generates nothing"
        return self.sample.token


@dataclass(frozen=True, slots=True)
class Embedding:
    """The embedding of a request's prompt, not normalised, as float32 in little-endian order. It ends the request."""

    request: Request
    vector: bytes


class RequestTooLongError(ValueError):
    """The request can never be computed; the message says both numbers."""


class WrongTokensError(ValueError):
    """The prompt is empty, or has numbers that are no tokens of the model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sequence may ask of a loaded model."""

    context_length: int
    cache_tokens: int  # the whole KV cache
    vocab_size: int

    @property
    def sequence_tokens(self) -> int:
        """The longest possible sequence, prompt and generated tokens together."""
        return min(self.context_length, self.cache_tokens)

    def check(self, prompt: int, max_tokens: int) -> None:
        """Raise RequestTooLongError if `prompt` tokens and `max_tokens` more are beyond what there is room for."""
        if prompt + max_tokens <= self.sequence_tokens:
            return
        asked = f"{prompt} prompt tokens + max_tokens {max_tokens} = {prompt + max_tokens} tokens"
        raise RequestTooLongError(f"{self._maximum}, but {asked if max_tokens else f'{prompt} tokens'} were requested")

    def check_bytes(self, size: int, longest_token: int) -> None:
        """Raise RequestTooLongError if a text of `size` bytes cannot fit, whatever its tokens of at most so many bytes.

        A text of which the tokenizer leaves out a lot, such as long runs of spaces, may be refused though it would fit.
        """
        if size > self.sequence_tokens * longest_token:
            raise RequestTooLongError(
                f"{self._maximum}, but the prompt has {size} bytes or more: tokens have {longest_token} bytes at most"
            )

    @property
    def _maximum(self) -> str:
        cut = "" if self.context_length <= self.cache_tokens else ", which is what the KV cache holds"
        return f"This model's maximum context length is {self.sequence_tokens} tokens{cut}"

    def check_tokens(self, prompt: Sequence[int]) -> None:
        """Raise WrongTokensError for a prompt that the model cannot compute."""
        if not prompt:
            raise WrongTokensError("the prompt has no tokens; expected at least one")
        if min(prompt) < 0 or max(prompt) >= self.vocab_size:
            raise WrongTokensError(f"the prompt has token ids outside of 0 to {self.vocab_size - 1}")
