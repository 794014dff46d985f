"""The answers to one HTTP request: one choice for each of its sequences, as text that grows."""

import hashlib
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Self

from ...engine.request import FinishReason, Output, Request, TokenLogprobs
from ...engine.thread import EngineThread
from ...tokenizer import Tokenizer
from ..metrics import Metrics
from .detokenizer import Detokenizer
from .reader import PLAIN, AnswerReader, CallDelta, Parts, Reading
from .stop_strings import Pattern, StopStrings


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What of a sequence is told as text. All choices of a request share it."""

    stops: Sequence[str] = ()
    keeps_stop: bool = False  # the text ends with the stop string or end token, not before it
    shows_special_tokens: bool = False
    min_tokens: int = 0  # of the answer, in whose text no stop string is looked for
    tells_logprobs: bool = True  # else they are there to rank choices only
    reading: Reading = PLAIN  # what is looked for in the text

    @cached_property
    def patterns(self) -> list[Pattern]:
        """Those of the stop strings."""
        return list(map(Pattern, self.stops))


@dataclass(frozen=True, slots=True)
class Delta:
    """What one token adds to a choice. The text may be empty: half a character, or held back for a stop string."""

    index: int
    text: str
    token: int | None  # None for an end token, which has no text
    logprobs: TokenLogprobs | None  # of the token, or of the end token
    finish: FinishReason | None
    end_token: int | None = None  # that ended the sequence
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    stop_reason: str | None = None  # the stop string that did


class Choice:
    """One sequence's tokens turned into text."""

    def __init__(self, index: int, request: Request, tokenizer: Tokenizer, text: TextOptions) -> None:
        self.index, self.request = index, request
        self.tokens = 0  # generated, as billed: the end token and those of a stop string count
        self.told: Sequence[int] = ()  # the first of them, which another server has told
        self.is_finished = False  # by that server
        self.logprob = 0.0  # the sum of those of all its tokens, where the engine gives any
        self.told_at: float | None = None  # time of the last token
        self._tokenizer = tokenizer
        self._prompt = request.tokens[: request.prompt_length] if request.generated else request.tokens
        self._stops, self._text = StopStrings(text.stops, keep=text.keeps_stop, patterns=text.patterns), text
        self._markers = text.reading.markers
        # Whether special tokens are looked at: they are told, or may be a stop string, a marker or a part of one.
        self._reads_special = text.shows_special_tokens or any(
            name in words for words in (*text.stops, *self._markers) for name in tokenizer.special_names
        )
        self._reader = None if text.reading.is_plain else AnswerReader(text.reading, self._number)
        self._generated = array("q")  # tokens, where there is a reader
        self.reasoning_tokens = 0  # of `tokens`

    @property
    def may_end(self) -> bool:
        """Whether what its text says may end it."""
        return bool(self._text.stops or self._text.reading.one_call)

    @property
    def stop_reason(self) -> str | None:
        """The stop string that has ended the text."""
        return self._stops.found

    @property
    def is_begun(self) -> bool:
        """Whether another server has told some of it."""
        return self.is_finished or len(self.told) > 0

    def skip(self, tokens: Sequence[int], *, finished: bool = False) -> bool:
        """Take tokens that the answer begins with, whose text has been told; whether a stop string is among it.

        `finished`: they are all of it.
        """
        self.told, self.is_finished = tokens, finished
        stopped = False
        for token in tokens:
            self.tokens += 1
            stopped |= self._skip(token)
        return stopped

    def _skip(self, token: int) -> bool:
        text, stopped = self._push_text(token)
        self._read(text, token)
        return stopped or (self._reader is not None and self._reader.finished)

    @property
    def mean_logprob(self) -> float:
        """Of a token, as OpenAI ranks choices."""
        return self.logprob / max(self.tokens, 1)

    def end(self, finish: FinishReason) -> Delta:
        """End a choice for which nothing was to be generated."""
        return Delta(self.index, "", None, None, finish)

    def push(self, token: int, logprobs: TokenLogprobs | None, finish: FinishReason | None) -> Delta:
        """Add a generated token: the text that is now certain, and why the sequence ends if it does."""
        self.tokens += 1
        if logprobs is not None:
            self.logprob += logprobs.chosen
            logprobs = logprobs if self._text.tells_logprobs else None
        if finish is FinishReason.STOP and token in self.request.params.stop_token_ids:
            last = self._push_text(token)[0] if self._text.keeps_stop else ""
            return self._delta(Delta(self.index, self._rest(last), None, logprobs, finish, token), token)
        text, stopped = self._push_text(token)
        if stopped:
            finish = FinishReason.STOP
        elif finish:
            text = self._rest(text)
        return self._delta(Delta(self.index, text, token, logprobs, finish), token)

    def _delta(self, delta: Delta, token: int) -> Delta:
        """The delta with its text read."""
        reader = self._reader
        if reader is None:
            return delta
        parts, finish = self._read(delta.text, token), delta.finish
        if finish:
            parts += reader.flush()
        elif reader.finished:
            finish = FinishReason.STOP
        if finish is FinishReason.STOP and reader.called:
            finish = FinishReason.TOOL_CALLS
        return replace(delta, text=parts.text, reasoning=parts.reasoning, calls=parts.calls, finish=finish)

    def _read(self, text: str, token: int) -> Parts:
        if self._reader is None:
            return Parts(text)
        self._generated.append(token)
        was_thinking = self._reader.is_thinking
        parts = self._reader.push(text)
        self.reasoning_tokens += was_thinking and self._reader.is_thinking
        return parts

    def _number(self) -> bytes:
        """What no other answer has at this place, and this one has again when another server goes on with it."""
        tokens = array("q", self._prompt[: self.request.prompt_length]) + self._generated
        return hashlib.blake2b(tokens.tobytes() + self.index.to_bytes(4, "big")).digest()

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self._tokenizer, self._prompt)  # when it is needed: thousands of sequences may be waiting

    def _push_text(self, token: int) -> tuple[str, bool]:
        """What a token adds to the text that may be told, and whether a stop string came."""
        text, stopped = self._until_stop(self._detokenizer.push(token))
        if stopped or not self._reads_special or self._tokenizer.is_visible(token):
            return text, stopped
        name = self._tokenizer.token_bytes(token).decode()
        hidden = not self._text.shows_special_tokens and name not in self._markers
        more, stopped = self._until_stop(name, hidden=hidden)
        return text + more, stopped

    def _until_stop(self, text: str, *, hidden: bool = False) -> tuple[str, bool]:
        if self.tokens <= self._text.min_tokens:
            return "" if hidden else text, False
        return self._stops.push(text, hidden=hidden)

    def _rest(self, text: str) -> str:
        """`text` and all that is still held back."""
        last, stopped = self._until_stop(self._detokenizer.flush())
        return text + last + ("" if stopped else self._stops.flush())


class Generation:
    """Submits sequences on entering, yields their deltas in any order, and on leaving aborts what is not finished.

    Of those that another server has finished there is nothing more.
    """

    def __init__(
        self,
        engine: EngineThread,
        metrics: Metrics,
        choices: Sequence[Choice],
        started_at: float,
        *,
        at_once: bool = True,
    ) -> None:
        """`at_once`: each delta is wanted as soon as its token is there; else they may come in groups."""
        self._engine, self._metrics, self.choices = engine, metrics, choices
        self._started_at, self._at_once = started_at, at_once
        self._open = {choice.request.id: choice for choice in choices if not choice.is_finished}

    async def __aenter__(self) -> Self:
        requests = [choice.request for choice in self._open.values()]
        self._outputs = self._engine.submit(requests, at_once=self._at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.abort(self._open)

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        """Raises EngineError if the engine ends before the sequences do, or fails on one of them."""
        while self._open:
            output, at = await self._outputs.get()
            choice = self._open.get(output.request.id)
            if choice is not None:  # else a stop string ended it while the engine computed on
                return self._push(choice, output, at)
        raise StopAsyncIteration

    def _push(self, choice: Choice, output: Output, at: float) -> Delta:
        self._observe(choice, at)
        delta = _delta(choice, output)
        if delta.finish:
            delta = replace(delta, stop_reason=choice.stop_reason)
            del self._open[choice.request.id]
            self._engine.abort([choice.request.id])
        return delta

    def _observe(self, choice: Choice, at: float) -> None:
        if choice.told_at is None:
            self._metrics.ttft.observe(at - self._started_at)
        else:
            self._metrics.itl.observe(at - choice.told_at)
        choice.told_at = at


def _delta(choice: Choice, output: Output) -> Delta:
    if output.sample is None:
        assert output.finish is not None, "an output without a token is the last one"
        return choice.end(output.finish)
    return choice.push(output.sample.token, output.sample.logprobs, output.finish)
