"""The answers to one HTTP request: one choice for each of its sequences, as text that grows."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Self

from ...engine.request import FinishReason, Output, Request, TokenLogprobs
from ...engine.thread import EngineThread
from ...tokenizer import Tokenizer
from ..metrics import Metrics
from .detokenizer import Detokenizer, StopStrings


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """What of a sequence is told as text."""

    stops: Sequence[str] = ()
    keeps_stop: bool = False  # the text ends with the stop string or end token, not before it
    shows_special_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """What one token adds to a choice. The text may be empty: half a character, or held back for a stop string."""

    index: int
    text: str
    token: int | None  # None for an end token, which has no text
    logprobs: TokenLogprobs | None
    finish: FinishReason | None
    end_token: int | None = None  # that ended the sequence
    stop_reason: str | None = None  # the stop string that did


class Choice:
    """One sequence's tokens turned into text."""

    def __init__(self, index: int, request: Request, tokenizer: Tokenizer, text: TextOptions) -> None:
        self.index, self.request = index, request
        self.tokens = 0  # generated, as billed: the end token and those of a stop string count
        self.told_at: float | None = None  # time of the last token
        self._tokenizer = tokenizer
        self._prompt = request.tokens[: request.prompt_length] if request.generated else request.tokens
        self._stops, self._text = StopStrings(text.stops, keep=text.keeps_stop), text
        # Whether special tokens are looked at: they are told, or may be a stop string or a part of one.
        self._reads_special = text.shows_special_tokens or any(
            name in stop for stop in text.stops for name in tokenizer.special_names
        )

    @property
    def stop_reason(self) -> str | None:
        """The stop string that has ended the text."""
        return self._stops.found

    def skip(self, tokens: Sequence[int]) -> bool:
        """Take tokens that the answer begins with, whose text has been told; whether a stop string is among it."""
        self.tokens += len(tokens)
        return any([self._push_text(token)[1] for token in tokens])

    def push(self, token: int, logprobs: TokenLogprobs | None, finish: FinishReason | None) -> Delta:
        """Add a generated token: the text that is now certain, and why the sequence ends if it does."""
        self.tokens += 1
        if finish is FinishReason.STOP and token in self.request.params.stop_token_ids:
            last = self._push_text(token)[0] if self._text.keeps_stop else ""
            return Delta(self.index, self._rest(last), None, None, finish, token)
        text, stopped = self._push_text(token)
        if stopped:
            finish = FinishReason.STOP
        elif finish:
            text = self._rest(text)
        return Delta(self.index, text, token, logprobs, finish)

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self._tokenizer, self._prompt)  # when it is needed: thousands of sequences may be waiting

    def _push_text(self, token: int) -> tuple[str, bool]:
        """What a token adds to the text that may be told, and whether a stop string came."""
        text, stopped = self._stops.push(self._detokenizer.push(token))
        if stopped or not self._reads_special or self._tokenizer.is_visible(token):
            return text, stopped
        name = self._tokenizer.token_bytes(token).decode()
        more, stopped = self._stops.push(name, hidden=not self._text.shows_special_tokens)
        return text + more, stopped

    def _rest(self, text: str) -> str:
        """`text` and all that is still held back."""
        last, stopped = self._stops.push(self._detokenizer.flush())
        return text + last + ("" if stopped else self._stops.flush())


class Generation:
    """Submits sequences on entering, yields their deltas in any order, and on leaving aborts what is not finished."""

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
        self._open = {choice.request.id: choice for choice in choices}

    async def __aenter__(self) -> Self:
        self._outputs = self._engine.submit([choice.request for choice in self.choices], at_once=self._at_once)
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
        delta = choice.push(output.sample.token, output.sample.logprobs, output.finish)
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
